"""What blocking calls of a driver run on: native threads, whatever kind of thread the daemon's own are."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol


class Finished(Protocol):
    """Set by a native thread, waited for by the caller, whatever kind of thread that is."""

    def set(self) -> None:
        """Wake the waiter."""

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until set; False at the timeout."""


class Threads(Protocol):
    """Where blocking calls run. Under green threads the service hands in one that leaves the hub running."""

    def start(self, work: Callable[[], None], name: str) -> None:
        """Run `work` in a native thread that does not keep the process alive."""

    def event(self) -> Finished:
        """A new event that such a thread can set and this one can wait for."""


class NativeThreads:
    """Plain threads."""

    def start(self, work: Callable[[], None], name: str) -> None:
        """Run `work` in a daemon thread."""
        threading.Thread(target=work, name=name, daemon=True).start()

    def event(self) -> Finished:
        """A plain event."""
        return threading.Event()
