"""The seam that 2011.2 called HelperBase: whoever works on a pool is handed its session here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from virt.driver import Progress, no_progress
from virt.xenapi.session import Session

Record = dict[str, Any]


class HelperBase:
    """A helper with the session that it calls xapi through. Subclasses call nothing else."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def call(self, method: str, *args: Any) -> Any:
        """What xapi answers; see Session.call."""
        return self.session.call(method, *args)

    def make(self, find: Callable[[], str | None], method: str, *args: Any) -> str:
        """Something new; see Session.make."""
        return self.session.make(find, method, *args)

    def run(self, method: str, *args: Any, timeout_s: float, progress: Progress = no_progress) -> str:
        """A task to its end; see Session.run."""
        return self.session.run(method, *args, timeout_s=timeout_s, progress=progress)
