"""Changes that may be made side by side are, and none overtakes one that it has to wait for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    name: str | None

    def holds_up(self, later: _Place) -> bool:
        return self.name is None or later.name is None or self.name == later.name


class Line:
    """Lets those through who come, in order: several of different names at once, one that comes alone by itself."""

    def __init__(self) -> None:
        self._moved = threading.Condition()
        self._places: list[_Place] = []

    @contextmanager
    def beside(self, name: str) -> Iterator[None]:
        """Wait for those before of the same name, and for those that are alone."""
        with self._place(_Place(name)):
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait for everybody before; who comes later waits."""
        with self._place(_Place(None)):
            yield

    @contextmanager
    def _place(self, mine: _Place) -> Iterator[None]:
        with self._moved:
            self._places.append(mine)
        try:
            with self._moved:
                self._moved.wait_for(lambda: not any(one.holds_up(mine) for one in self._before(mine)))
            yield
        finally:
            with self._moved:
                self._places.remove(mine)
                self._moved.notify_all()

    def _before(self, mine: _Place) -> Iterator[_Place]:
        return takewhile(lambda one: one is not mine, self._places)
