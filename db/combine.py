"""Units of work of many threads, several to a transaction: for SQLite, which has one writer at a time.

Whoever finds nobody writing leads: it does its own unit, and with it those that other threads have brought meanwhile,
and commits once. What comes while it does waits for the next leader, the first of those who wait. So a commit, and
the write lock's way from process to process, is paid once for all of them, and no thread is woken to find it taken.

When a unit of a batch fails, the batch is rolled back and each of its units done in a transaction of its own, so
that one's error is never another's.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import Connection

from db.errors import DatabaseUnreachableError

LOG = logging.getLogger(__name__)
Work = Callable[[Connection], Any]
AT_MOST = 32


class _Unit:
    """One caller's work and, when its gate opens, what came of it or that it is to lead."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.leads = self.is_done = False
        self.outcome: Any = None
        self.error: Exception | None = None
        self.gate = threading.Lock()
        self.gate.acquire()

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.outcome


class Combiner:
    """Does units of work, one batch at a time."""

    def __init__(self, begin: Callable[[], AbstractContextManager[Connection]], patience_s: float) -> None:
        """begin: opens a transaction that commits at its end; patience_s: the longest wait for other threads."""
        self._begin, self._patience_s = begin, patience_s
        self._lock = threading.Lock()
        self._waiting: deque[_Unit] = deque()
        self._busy = False

    def run(self, work: Work) -> Any:
        """Return what `work` returned in a committed transaction, or raise what it raised, rolled back."""
        unit = _Unit(work)
        with self._lock:
            if self._busy:
                self._waiting.append(unit)
            else:
                self._busy = unit.leads = True
        if not unit.leads:
            self._await(unit)
        if unit.leads:
            self._lead(unit)
        return unit.result()

    def _await(self, unit: _Unit) -> None:
        if unit.gate.acquire(timeout=self._patience_s):
            return
        with self._lock:
            if unit in self._waiting:
                self._waiting.remove(unit)
                raise DatabaseUnreachableError(f"this process has been writing to SQLite for {self._patience_s:.0f} s")
        unit.gate.acquire()  # it is being done at this moment

    def _lead(self, own: _Unit) -> None:
        batch = [own]
        try:
            with self._lock:
                while self._waiting and len(batch) < AT_MOST:
                    batch.append(self._waiting.popleft())
            self._commit(batch)
        except BaseException as exc:
            for unit in batch[1:]:
                if not unit.is_done:
                    unit.error = DatabaseUnreachableError(f"the writer was interrupted: {exc!r}")
            raise
        finally:
            self._pass_on()
            for unit in batch[1:]:
                unit.gate.release()

    def _pass_on(self) -> None:
        with self._lock:
            self._busy = bool(self._waiting)
            if self._busy:
                following = self._waiting.popleft()
                following.leads = True
                following.gate.release()

    def _commit(self, batch: list[_Unit]) -> None:
        if len(batch) > 1 and self._all_at_once(batch):
            return
        for unit in batch:
            try:
                with self._begin() as tx:
                    unit.outcome = unit.work(tx)
            except Exception as exc:  # noqa: BLE001 - it is its caller's, who raises it
                unit.outcome, unit.error = None, exc
            unit.is_done = True

    def _all_at_once(self, batch: list[_Unit]) -> bool:
        """False when a unit failed, which shows whose the failure is only when each is done alone."""
        began = False
        try:
            with self._begin() as tx:
                began = True
                for unit in batch:
                    unit.outcome = unit.work(tx)
        except Exception as exc:  # noqa: BLE001 - each caller raises it, or each unit does when it is alone
            if began:
                LOG.debug("%d units of work are done one by one: %r", len(batch), exc)
                return False
            for unit in batch:  # it is nobody's own, and each would wait for the lock in vain as long as this one did
                unit.error = exc
        return True
