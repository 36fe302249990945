"""Bad weather between a daemon and its database: units of work that never arrive, or whose answer is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from db.errors import DatabaseUnreachableError
from db.session import Database


class Weather:
    """Stands before Database.run; each kind of trouble hits the units of work of one name until `clear`."""

    def __init__(self, database: Database) -> None:
        self._run = database.run
        self._trouble: dict[str, Callable[..., Any]] = {}
        self.hits = 0
        database.run = self._through  # type: ignore[method-assign]

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

    def _through(self, unit: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        trouble = self._trouble.get(getattr(unit, "__name__", ""))
        if trouble is None:
            return self._run(unit, *args, **kwargs)
        self.hits += 1
        return trouble(unit, *args, **kwargs)

    def _lose(self, *_: Any, **__: Any) -> Any:
        raise DatabaseUnreachableError("the database is away")

    def _commit_and_lose(self, unit: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._run(unit, *args, **kwargs)
        return self._lose()

    def _twice(self, unit: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._run(unit, *args, **kwargs)
        return self._run(unit, *args, **kwargs)
