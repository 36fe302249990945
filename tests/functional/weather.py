"""Bad weather between a daemon and its database: units of work that never arrive, or whose answer is lost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from db.errors import DatabaseUnreachableError
from db.session import Database


class Weather:
    """Stands before Database.run and run_single; each trouble hits the units of work of some names until `clear`."""

    def __init__(self, database: Database) -> None:
        self._trouble: dict[str, Callable[..., Any]] = {}
        self.hits = 0
        for name in ("run", "run_single"):
            setattr(database, name, partial(self._through, getattr(database, name)))

    def away(self, *units: str) -> None:
        """These never reach the database."""
        self._trouble.update(dict.fromkeys(units, self._lose))

    def answerless(self, *units: str) -> None:
        """These are committed, and nobody is told; the database is away after that."""
        self._trouble.update(dict.fromkeys(units, self._commit_and_lose))

    def repeated(self, *units: str) -> None:
        """These are committed and done again, as after one lost answer."""
        self._trouble.update(dict.fromkeys(units, self._twice))

    def clear(self) -> None:
        """The database answers again."""
        self._trouble.clear()

    def _through(self, run: Callable[..., Any], unit: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        trouble = self._trouble.get(getattr(unit, "__name__", ""))
        if trouble is None:
            return run(unit, *args, **kwargs)
        self.hits += 1
        return trouble(partial(run, unit, *args, **kwargs))

    @staticmethod
    def _lose(_commit: Callable[[], Any]) -> Any:
        raise DatabaseUnreachableError("the database is away")

    @staticmethod
    def _commit_and_lose(commit: Callable[[], Any]) -> Any:
        commit()
        raise DatabaseUnreachableError("the database is away")

    @staticmethod
    def _twice(commit: Callable[[], Any]) -> Any:
        commit()
        return commit()
