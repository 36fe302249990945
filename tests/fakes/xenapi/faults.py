"""What is to go wrong, and at which call.

A fault waits for a call of its method (`VM.clone`; an Async call is the same method) or for a transfer by its handler
(`import_raw_vdi`, `export_raw_vdi`). nth counts the calls from now on, 1 being the next. times is how many calls in a
row it hits, None for all from then on.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, eq=False)
class Fault:
    """One fault. kind: what happens, `facts` are its particulars."""

    kind: str
    where: str
    nth: int = 1
    times: int | None = 1
    facts: dict[str, Any] = field(default_factory=dict)


class Hold:
    """Somebody who stands still at a call until it is released."""

    def __init__(self) -> None:
        self.reached, self._released = threading.Event(), threading.Event()

    def stand(self) -> None:
        """Stand still."""
        self.reached.set()
        self._released.wait()

    def release(self) -> None:
        """Go on."""
        self._released.set()


class Faults:
    """The faults of a pool; `pending` are those that have not happened (often enough) yet."""

    def __init__(self) -> None:
        self.pending: list[Fault] = []
        self._holds: list[Hold] = []
        self._lock = threading.Lock()

    def fail(self, method: str, code: str, *params: str, nth: int = 1, times: int | None = 1) -> None:
        """Answer with an error, nothing done; for an Async call its task fails."""
        self._add("fail", method, nth, times, description=[code, *params])

    def fail_after(self, method: str, code: str, *params: str, nth: int = 1) -> None:
        """Do the work, then answer with an error."""
        self._add("fail_after", method, nth, 1, description=[code, *params])

    fail_task = fail

    def lose_reply(self, method: str, nth: int = 1, times: int | None = 1) -> None:
        """Do the work, then close the connection without an answer."""
        self._add("lose_reply", method, nth, times)

    def drop_request(self, method: str, nth: int = 1, times: int | None = 1) -> None:
        """Close the connection, nothing done."""
        self._add("drop_request", method, nth, times)

    def hang(self, method: str, seconds: float, nth: int = 1, times: int | None = 1) -> None:
        """Do the work `seconds` late; meanwhile the object that the call is about is busy."""
        self._add("hang", method, nth, times, seconds=seconds)

    def never_finish(self, method: str, nth: int = 1, times: int | None = 1) -> None:
        """Stay at work, with nothing done, until the task is cancelled or the pool stops."""
        self._add("never_finish", method, nth, times)

    def hold(self, where: str, nth: int = 1, *, done: bool = False) -> Hold:
        """Have a call or transfer stand still until it is released, before its work or, when `done`, after it."""
        hold = Hold()
        self._holds.append(hold)
        self._add("hold_done" if done else "hold", where, nth, 1, hold=hold)
        return hold

    def release(self) -> None:
        """Let everybody go on who stands still, and forget those who did not get there."""
        with self._lock:
            self.pending = [one for one in self.pending if not one.kind.startswith("hold")]
            holds, self._holds = self._holds, []
        for hold in holds:
            hold.release()

    def fail_transfer(self, where: str, code: str, *params: str, nth: int = 1) -> None:
        """Answer 200, take or give all bytes, and fail the task."""
        self._add("fail_transfer", where, nth, 1, description=[code, *params])

    def cut_transfer(self, where: str, at_bytes: int, nth: int = 1) -> None:
        """Close the connection after so many bytes; the task fails."""
        self._add("cut_transfer", where, nth, 1, at_bytes=at_bytes)

    def redirect(self, where: str, nth: int = 1) -> None:
        """Answer 302 to the pool's other host."""
        self._add("redirect", where, nth, 1)

    def refuse_transfer(self, where: str, status: int, nth: int = 1) -> None:
        """Answer with an HTTP status; the task stays as it is."""
        self._add("refuse_transfer", where, nth, 1, status=status)

    def hang_transfer(self, where: str, seconds: float, nth: int = 1) -> None:
        """Answer 200, take or give nothing for `seconds`, then go on."""
        self._add("hang_transfer", where, nth, 1, seconds=seconds)

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self.pending.clear()

    def take(self, where: str) -> dict[str, Fault]:
        """The faults that this call is hit by, by kind; counts the call."""
        with self._lock:
            hit = {}
            for one in [fault for fault in self.pending if fault.where == where]:
                one.nth -= 1
                if one.nth < 1:
                    hit[one.kind] = one
                    one.times = None if one.times is None else one.times - 1
                    if one.times == 0:
                        self.pending.remove(one)
            return hit

    def _add(self, kind: str, where: str, nth: int, times: int | None, **facts: Any) -> None:
        with self._lock:
            self.pending.append(Fault(kind, where, nth, times, facts))
