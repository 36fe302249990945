"""What a daemon counts about itself: operations by task and outcome, and syncs. Cheap, so it always does."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from compute.errors import AbortedError

T = TypeVar("T")
BUCKETS_S = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)


@dataclass(slots=True)
class Histogram:
    """How often something took how long. counts: one a bucket of BUCKETS_S, and one for what took longer."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    sum_s: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)


class Meter:
    """Counters of one daemon since its start; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._operations: dict[tuple[str, str], Histogram] = {}
        self._syncs = Histogram()

    @contextmanager
    def operation(self, task: str) -> Iterator[None]:
        """Count an operation, or a leg of one: done, failed, aborted, or interrupted by the daemon's end."""
        begun, outcome = time.monotonic(), "done"
        try:
            yield
        except AbortedError:
            outcome = "aborted"
            raise
        except Exception:
            outcome = "failed"
            raise
        except BaseException:
            outcome = "interrupted"
            raise
        finally:
            self._count(task, outcome, time.monotonic() - begun)

    @contextmanager
    def sync(self) -> Iterator[None]:
        """Count a power-state sync."""
        begun = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._syncs.add(time.monotonic() - begun)

    def _count(self, task: str, outcome: str, seconds: float) -> None:
        with self._lock:
            self._operations.setdefault((task, outcome), Histogram()).add(seconds)

    def operations(self) -> dict[tuple[str, str], Histogram]:
        """Durations by (task, outcome)."""
        with self._lock:
            return {key: Histogram(list(one.counts), one.sum_s) for key, one in self._operations.items()}

    def syncs(self) -> Histogram:
        """Durations of syncs."""
        with self._lock:
            return Histogram(list(self._syncs.counts), self._syncs.sum_s)


class Latest(Generic[T]):
    """The newest answer to a question that may hang: asked by one thread at a time, and waited for only so long."""

    def __init__(self, ask: Callable[[], T], *, fresh_s: float, patience_s: float) -> None:
        self._ask, self._fresh_s, self._patience_s = ask, fresh_s, patience_s
        self._answer: tuple[T, float] | None = None
        self._asking: threading.Event | None = None
        self._lock = threading.Lock()
        self._error: Exception | None = None

    def get(self) -> tuple[T | None, float | None]:
        """An answer and its age in seconds; an old one when there is no newer in time, None before the first."""
        with self._lock:
            if self._age() is None or (self._age() or 0.0) >= self._fresh_s or self._error is not None:
                self._begin()
            asking = self._asking
        if asking is not None:
            asking.wait(self._patience_s)
        with self._lock:
            return (self._answer[0] if self._answer else None), self._age()

    @property
    def answers(self) -> bool:
        """True if the last question was answered, and well."""
        with self._lock:
            return self._answer is not None and self._error is None and self._asking is None

    def _age(self) -> float | None:
        return None if self._answer is None else time.monotonic() - self._answer[1]

    def _begin(self) -> None:
        if self._asking is None:
            self._asking = threading.Event()
            threading.Thread(target=self._run, args=(self._asking,), name="metrics", daemon=True).start()

    def _run(self, asking: threading.Event) -> None:
        error: Exception | None = None
        answer: tuple[T, float] | None = None
        try:
            answer = self._ask(), time.monotonic()
        except Exception as exc:  # noqa: BLE001 - whoever asked is told how old the last answer is
            error = exc
        with self._lock:
            self._answer, self._error, self._asking = answer or self._answer, error, None
        asking.set()
