"""An undo stack: each step registers its undo beside it; success forgets them, failure runs them backwards."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

LOG = logging.getLogger(__name__)


class Undo:
    """Undo steps of one operation."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], Any]]] = []

    def callback(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Run `step(*args, **kwargs)` if the operation fails."""
        name = getattr(step, "__qualname__", repr(step))
        self._steps.append((name, lambda: step(*args, **kwargs)))

    def forget(self) -> None:
        """The operation succeeded."""
        self._steps.clear()

    def run(self) -> list[str]:
        """Undo everything, last first; one that fails does not stop the others. What failed, in words."""
        failures = []
        while self._steps:
            name, step = self._steps.pop()
            try:
                step()
            except Exception as exc:  # the operation has failed already: this must not hide why
                LOG.exception("undo %s failed", name)
                failures.append(f"{name}: {exc}")
        return failures
