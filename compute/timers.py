"""Timers: a thread each, so that a slow sync never delays a heartbeat."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from db.errors import DatabaseError

LOG = logging.getLogger(__name__)


class Timer:
    """Calls `job` every `interval_s`, at once first when `now`; a failure is logged, and the next round runs."""

    def __init__(self, name: str, interval_s: float, job: Callable[[], object], *, now: bool = False) -> None:
        self.name, self._interval_s, self._job, self._now = name, interval_s, job, now
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self.failures = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End after the round that runs, if any, waiting for it at most `timeout_s`."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _loop(self) -> None:
        due = time.monotonic() + (0 if self._now else self._interval_s)
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            self._round()
            due = max(due + self._interval_s, time.monotonic())

    def _round(self) -> None:
        try:
            self._job()
        except DatabaseError as exc:
            self._failed("%s: %s", exc)
        except Exception as exc:
            self._failed("%s failed: %s", exc)
            LOG.debug("%s", self.name, exc_info=True)
        else:
            if self.failures:
                LOG.info("%s works again after %d failures", self.name, self.failures)
            self.failures = 0

    def _failed(self, message: str, exc: Exception) -> None:
        """Tell the first of a row of failures, and then every hundredth."""
        self.failures += 1
        if self.failures % 100 == 1:
            LOG.error(message, self.name, exc, exc_info=not getattr(exc, "expected", False))
