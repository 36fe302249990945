"""Handlers of messages by full name, and what a handler is told about the call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.fakes.xenapi.database import Database
    from tests.fakes.xenapi.disks import Disks
    from tests.fakes.xenapi.pool import Host, Pool, Settings

Handler = Callable[..., Any]
HANDLERS: dict[str, Handler] = {}
UNLOCKED: set[str] = set()


@dataclass(slots=True)
class Context:
    """One call. host: which of the hosts was asked. task: the reference of an Async call's task, or empty."""

    pool: Pool
    host: Host
    session: str = ""
    task: str = ""
    cleanup: list[Callable[[], None]] = field(default_factory=list)

    @property
    def db(self) -> Database:
        """The pool's database."""
        return self.pool.db

    @property
    def disks(self) -> Disks:
        """What is on the virtual disks."""
        return self.pool.disks

    @property
    def settings(self) -> Settings:
        """How the pool behaves."""
        return self.pool.settings


def handler(*names: str, locked: bool = True) -> Callable[[Handler], Handler]:
    """Register a function that is called with the context and the message's arguments, the database held."""

    def register(function: Handler) -> Handler:
        for name in names:
            HANDLERS[name] = function
            if not locked:
                UNLOCKED.add(name)
        return function

    return register
