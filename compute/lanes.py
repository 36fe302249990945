"""Lanes for heavy work: at most so many builds, snapshots or migrations at a time, first come first served."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor

LOG = logging.getLogger(__name__)


class Lane:
    """A queue with a few workers, keyed so that the same order never waits twice."""

    def __init__(self, name: str, width: int) -> None:
        self.name = name
        self._pool = ThreadPoolExecutor(width, thread_name_prefix=name)
        self._waiting: set[Hashable] = set()
        self._lock = threading.Lock()
        self._closed = False

    @property
    def depth(self) -> int:
        """How many jobs wait or run."""
        with self._lock:
            return len(self._waiting)

    def submit(self, key: Hashable, job: Callable[[], None]) -> None:
        """Run `job` when it is its turn; nothing when a job of this key waits or runs, or the lane is closed."""
        with self._lock:
            if key in self._waiting or self._closed:
                return
            self._waiting.add(key)
            self._pool.submit(self._run, key, job)

    def _run(self, key: Hashable, job: Callable[[], None]) -> None:
        try:
            if not self._closed:
                job()
        except Exception:  # the job records its own failure; what reaches this point is a defect worth a traceback
            LOG.exception("order %s", key)
        finally:
            with self._lock:
                self._waiting.discard(key)

    def close(self) -> None:
        """Start nothing more; what waits stays in the journal for the next daemon."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
