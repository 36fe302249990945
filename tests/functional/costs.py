"""What operations cost, counted and never timed: statements, commits, messages, programs started."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from oslo_messaging.transport import Transport
from sqlalchemy import event

from compute.api import Accepted
from db import actions
from db.session import Database
from tests.functional.harness import ADMIN, Deployment, eventually

STILL = {"report_interval": 3600, "redrive_interval": 3600, "periodic_interval": 3600}  # no timer joins in
ENGINE: Any = sa.Engine


@dataclass
class Cost:
    """What was counted, by every database of the process but the ones that watch."""

    statements: list[str] = field(default_factory=list)
    commits: int = 0
    messages: list[str] = field(default_factory=list)
    programs: list[Any] = field(default_factory=list)

    @property
    def writes(self) -> list[str]:
        """Statements that are no SELECT."""
        return [statement for statement in self.statements if not statement.startswith("SELECT")]

    @property
    def figures(self) -> tuple[int, int, int]:
        """Statements, commits and messages."""
        return len(self.statements), self.commits, len(self.messages)


@contextmanager
def counted(*watching: Database) -> Iterator[Cost]:
    """Count what happens meanwhile in this process, on databases made meanwhile too, but not on those `watching`."""
    cost, quiet = Cost(), {engine for database in watching for engine in (database.engine, database.reader)}

    def executes(connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if connection.engine not in quiet:
            cost.statements.append(" ".join(statement.split()))
            alone = getattr(connection.connection.dbapi_connection, "autocommit", False) is True
            cost.commits += alone and not statement.startswith("SELECT")

    def commits(connection: Any) -> None:
        cost.commits += connection.engine not in quiet

    event.listen(ENGINE, "before_cursor_execute", executes)
    event.listen(ENGINE, "commit", commits)
    with (
        _noting(
            Transport, "_send", lambda _self, _target, _ctxt, message, **_: cost.messages.append(message["method"])
        ),
        _noting(subprocess.Popen, "__init__", lambda _self, argv, *_, **__: cost.programs.append(argv)),
    ):
        try:
            yield cost
        finally:
            event.remove(ENGINE, "before_cursor_execute", executes)
            event.remove(ENGINE, "commit", commits)


@contextmanager
def _noting(owner: Any, name: str, note: Callable[..., object]) -> Iterator[None]:
    real = getattr(owner, name)

    def noting(*args: Any, **kwargs: Any) -> Any:
        note(*args, **kwargs)
        return real(*args, **kwargs)

    setattr(owner, name, noting)
    try:
        yield
    finally:
        setattr(owner, name, real)


class Meter:
    """Counts operations of a deployment, each from the API's call to the end of its order."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._watch = Database(deployment.db.url.render_as_string(hide_password=False))

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.dispose()

    def cost_of(self, operation: Callable[[], Accepted]) -> Cost:
        """What one operation costs; it must succeed."""
        with counted(self._watch) as cost:
            accepted = operation()
            assert accepted.action_id is not None
            eventually(lambda: self._state(accepted.action_id) not in actions.OPEN)
        assert self._state(accepted.action_id) == actions.DONE
        return cost

    def boot(self) -> tuple[int, Cost]:
        """Boot one instance as most are: default network, default security group; its id and its cost."""
        made: list[Accepted] = []

        def create() -> Accepted:
            made.extend(self._deployment.api.create(ADMIN, image="tiny", instance_type="m1.tiny"))
            return made[0]

        cost = self.cost_of(create)
        return made[0].instance_id, cost

    def _state(self, action_id: int | None) -> str:
        assert action_id is not None
        return self._watch.query(actions.get, action_id).state
