"""Faults to order: failures, delays, hangs and crashes at named points of the fake driver's calls.

A point is a method (`spawn`: reached before anything is done), `spawn.done` (done, not yet answered) or one of the
method's steps (`spawn.disks`: reached before that step). `POINTS` lists those of the methods that have steps.

A control file orders faults for a daemon from outside. It is a JSON object, each key optional:
{"fail": ["spawn:HypervisorError:boom:3"], "hang": ["reboot"], "delay": {"spawn": 0.5}, "exit": ["spawn.disks"],
"unreachable": true}. "exit" ends the process at that point, as kill -9 would. Write it elsewhere and rename it; a new
content replaces all that the old one ordered.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virt import errors
from virt.errors import DriverConfigError, DriverTimeoutError, HypervisorUnreachableError, ProcessError, VirtError

WORDS = {
    "image": "downloading image",
    "disks": "creating disks",
    "filters": "setting filters",
    "network": "plugging interfaces",
    "volumes": "connecting volumes",
    "start": "starting the guest",
    "stop": "stopping the guest",
    "copy": "copying disks",
    "check": "checking the destination",
    "memory": "copying memory",
    "switch": "switching hosts",
    "freeze": "taking a snapshot",
    "write": "writing the image",
}
STEPS = {
    "spawn": ("image", "disks", "filters", "network", "volumes", "start"),
    "rescue": ("image", "disks", "start"),
    "migrate_disk_and_power_off": ("stop", "copy"),
    "finish_resize": ("disks", "filters", "network", "volumes", "start"),
    "live_migration": ("check", "memory", "switch"),
    "snapshot": ("freeze", "write"),
}
POINTS = {
    method: (method, *(f"{method}.{step}" for step in steps), f"{method}.done") for method, steps in STEPS.items()
}

_POLL_S = 0.02


@dataclass(eq=False)
class _Rule:
    """Something to do when a point is reached, `left` times more (None: for ever)."""

    act: Callable[[_Rule], None]
    left: int | None
    from_file: bool = False
    is_hang: bool = False
    over: bool = False


class Faults:
    """What is to go wrong on one driver. Safe to use from any thread, while calls are under way."""

    def __init__(self) -> None:
        self._file: Path | None = None
        self._file_stamp: tuple[int, int, int] | None = None
        self._lock = threading.Lock()
        self._rules: dict[str, list[_Rule]] = {}
        self._cut = self._cut_by_file = False
        self._changed = threading.Condition(self._lock)

    def fail(self, point: str, error: Exception, times: int | None = 1, *, after: bool = False) -> None:
        """Raise `error` the next `times` times (None: always); after: the call was done, its answer is lost."""
        self._add(f"{point}.done" if after else point, _Rule(_raiser(error), times))

    def delay(self, point: str, seconds: float, times: int | None = None) -> None:
        """Take that much longer."""
        self._add(point, _Rule(lambda _: time.sleep(seconds), times))

    def hang(self, point: str, timeout_s: float | None = None) -> None:
        """Block whoever gets there until `release`; DriverTimeoutError after `timeout_s`."""
        self._add(point, _Rule(self._hanger(timeout_s), None, is_hang=True))

    def at(self, point: str, callback: Callable[[], None], times: int | None = 1) -> None:
        """Call back when a point is reached: kill the process, stop the clock, look around."""
        self._add(point, _Rule(lambda _: callback(), times))

    def unreachable(self, cut: bool = True) -> None:  # noqa: FBT001, FBT002, RUF100 - reads as a switch
        """Cut (or mend) the connection: every call raises HypervisorUnreachableError."""
        self._cut = cut

    def release(self) -> None:
        """Let everything that hangs go on."""
        self._end(lambda rule: rule.is_hang)

    def clear(self) -> None:
        """Nothing goes wrong any more; what hangs goes on."""
        self._cut = False
        self._end(lambda _: True)

    def load(self, items: Iterable[str]) -> None:
        """Add failures written as `spawn:HypervisorError:boom:3` or `spawn:hang`; DriverConfigError on nonsense."""
        for item in items:
            self._add(*_parse(item, self._hanger(None)))

    def watch(self, file: Path | None) -> None:
        """Obey a control file of JSON, read again when it changes."""
        self._file = file

    @property
    def armed(self) -> bool:
        """True when anything at all was ordered."""
        return bool(self._rules)

    def refresh(self) -> None:
        """Read the control file again if it has changed."""
        if self._file is None:
            return
        try:
            stat = os.stat(self._file)  # noqa: PTH116 - on every call's path
            stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        except FileNotFoundError:
            stamp = None
        if stamp != self._file_stamp:
            self._file_stamp = stamp
            self._read({} if stamp is None else json.loads(self._file.read_text() or "{}"))

    def begin(self, method: str) -> None:
        """A call starts: HypervisorUnreachableError when the connection is cut, else as `reach`."""
        self.refresh()
        if self._cut or self._cut_by_file:
            raise HypervisorUnreachableError("the connection to the fake hypervisor is cut")
        if self._rules:
            self.reach(method)

    def reach(self, point: str) -> None:
        """A point is reached: do what was ordered for it, in the order it was ordered."""
        if point not in self._rules:
            return
        with self._lock:
            due = list(self._rules.get(point, ()))
            for rule in due:
                self._use(point, rule)
        for rule in due:
            rule.act(rule)

    def _use(self, point: str, rule: _Rule) -> None:
        if rule.left is None:
            return
        rule.left -= 1
        if rule.left <= 0:
            self._rules[point].remove(rule)
            if not self._rules[point]:
                del self._rules[point]

    def _add(self, point: str, rule: _Rule) -> None:
        method, _, step = point.partition(".")
        if step not in {"", "done", *STEPS.get(method, ())}:
            raise ValueError(f"{point}: {method} has no such step")
        with self._lock:
            self._rules.setdefault(point, []).append(rule)

    def _end(self, wanted: Callable[[_Rule], bool]) -> None:
        with self._changed:
            for point, rules in list(self._rules.items()):
                for rule in rules:
                    rule.over = rule.over or wanted(rule)
                self._rules[point] = [rule for rule in rules if not rule.over]
                if not self._rules[point]:
                    del self._rules[point]
            self._changed.notify_all()

    def _hanger(self, timeout_s: float | None) -> Callable[[_Rule], None]:
        def hang(rule: _Rule) -> None:
            deadline = None if timeout_s is None else time.monotonic() + timeout_s
            while not rule.over:
                with self._changed:
                    self._changed.wait(_POLL_S)
                self.refresh()
                if deadline is not None and time.monotonic() > deadline:
                    raise DriverTimeoutError(f"the fake hypervisor did not answer within {timeout_s} s")

        return hang

    def _read(self, orders: dict[str, Any]) -> None:
        self._end(lambda rule: rule.from_file)
        self._cut_by_file = bool(orders.get("unreachable", False))
        rules = [_parse(item, self._hanger(None)) for item in orders.get("fail", ())]
        rules += [(point, _Rule(self._hanger(None), None, is_hang=True)) for point in orders.get("hang", ())]
        rules += [(point, _Rule(_sleeper(float(s)), None)) for point, s in orders.get("delay", {}).items()]
        rules += [(point, _Rule(_exit, 1)) for point in orders.get("exit", ())]
        for point, rule in rules:
            rule.from_file = True
            self._add(point, rule)


def _raiser(error: Exception) -> Callable[[_Rule], None]:
    def act(_: _Rule) -> None:
        # The same exception object would collect the traceback of every raise.
        raise error.with_traceback(None)

    return act


def _sleeper(seconds: float) -> Callable[[_Rule], None]:
    return lambda _: time.sleep(seconds)


def _exit(_: _Rule) -> None:
    os._exit(137)


def _parse(item: str, hanger: Callable[[_Rule], None]) -> tuple[str, _Rule]:
    """One written failure as (point, rule)."""
    point, _, rest = item.partition(":")
    if rest == "hang":
        return point, _Rule(hanger, None, is_hang=True)
    name, message, times = (*rest.split(":", 2), "", "")[:3]
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, VirtError)) or kind is ProcessError:
        raise DriverConfigError(f"fake_failures = {item}: {name or 'nothing'} is not an error of virt.errors")
    try:
        return point, _Rule(_raiser(kind(message or "injected")), int(times) if times else None)
    except ValueError as exc:
        raise DriverConfigError(f"fake_failures = {item}: {times} is not a number of times") from exc
