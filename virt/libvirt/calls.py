"""Calls that may hang for ever: each has a deadline, and one that hangs delays nobody else.

A call runs in a native thread of its own. Calls of one lane (a guest) run one after another; a lane whose last call
never returned is broken and refuses at once until that call comes back. What hangs is counted and bounded.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from virt.errors import DriverTimeoutError
from virt.threads import Finished, NativeThreads, Threads

Result = TypeVar("Result")

_SETTLE_POLL_S = 0.02


class _Call(Generic[Result]):
    """One piece of work. The native thread touches nothing but this object."""

    def __init__(self, work: Callable[[], Result], finished: Finished) -> None:
        self._work, self.finished = work, finished
        self._error: BaseException | None = None
        self._result: Result
        self.returned = False

    def run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as exc:  # noqa: BLE001 - handed to the caller, who raises it
            self._error = exc
        finally:
            self.returned = True
            self.finished.set()

    def result(self) -> Result:
        if self._error is not None:
            raise self._error
        return self._result


class _Lane:
    """Calls that wait for one another."""

    def __init__(self, name: str) -> None:
        self.name, self.lock = name, threading.Lock()
        self.stuck: _Call[Any] | None = None

    @property
    def is_stuck(self) -> bool:
        return self.stuck is not None and not self.stuck.returned


class Calls:
    """Runs calls with deadlines: at most `workers` at once, besides at most `max_stuck` that never came back."""

    def __init__(self, *, workers: int = 32, max_stuck: int = 32, threads: Threads | None = None) -> None:
        self.threads: Threads = threads or NativeThreads()
        self._slots, self._max_stuck = threading.Semaphore(workers), max_stuck
        self._lanes: weakref.WeakValueDictionary[str, _Lane] = weakref.WeakValueDictionary()
        self._stuck: list[_Lane] = []
        self._guard = threading.Lock()

    def run(
        self,
        lane: str,
        work: Callable[[], Result],
        timeout_s: float,
        abandoned: Callable[[], None] = lambda: None,
    ) -> Result:
        """The result of `work`, or what it raised; calls of the same lane run one at a time.

        Raises DriverTimeoutError at the deadline, waiting included; then `work` goes on unseen, `abandoned` is called
        and the lane is broken until it returns. Also raised at once on a broken lane.
        """
        deadline = time.monotonic() + timeout_s
        queue = self._lane(lane)
        with _held(queue.lock, deadline, lane), _held(self._slots, deadline, lane):
            self._refuse_if_stuck(queue)
            call = _Call(work, self.threads.event())
            self.threads.start(call.run, f"libvirt:{lane}")
            if call.finished.wait(max(0.0, deadline - time.monotonic())):
                return call.result()
            self._abandon(queue, call)
        abandoned()
        raise DriverTimeoutError(f"{lane}: no answer from the hypervisor within {timeout_s:g} s")

    def stuck(self) -> list[str]:
        """The lanes with a call that passed its deadline and has not come back."""
        with self._guard:
            self._stuck = [lane for lane in self._stuck if lane.is_stuck]
            return [lane.name for lane in self._stuck]

    def settle(self, lane: str, timeout_s: float) -> None:
        """Wait for a lane's stuck call to come back, now that something was done about it."""
        deadline = time.monotonic() + timeout_s
        while lane in self.stuck() and time.monotonic() < deadline:
            time.sleep(_SETTLE_POLL_S)

    def _lane(self, name: str) -> _Lane:
        with self._guard:
            lane = self._lanes.get(name)
            if lane is None:
                lane = self._lanes[name] = _Lane(name)
            return lane

    def _refuse_if_stuck(self, lane: _Lane) -> None:
        if lane.is_stuck:
            raise DriverTimeoutError(f"{lane.name}: an earlier call to the hypervisor has not come back")
        if len(self.stuck()) >= self._max_stuck:
            raise DriverTimeoutError(f"{lane.name}: {self._max_stuck} calls to the hypervisor have not come back")

    def _abandon(self, lane: _Lane, call: _Call[Any]) -> None:
        with self._guard:
            lane.stuck = call
            self._stuck.append(lane)


@contextlib.contextmanager
def _held(lock: threading.Lock | threading.Semaphore, deadline: float, lane: str) -> Iterator[None]:
    if not lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
        raise DriverTimeoutError(f"{lane}: other calls to the hypervisor took until the deadline")
    try:
        yield
    finally:
        lock.release()
