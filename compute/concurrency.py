"""The one seam between native threads (the default) and eventlet.

`choose` runs before anything that imports threading-dependent libraries does real work: it monkey-patches under
eventlet, and tells oslo.service, which oslo.messaging imports, which of its back ends to load.
"""

from __future__ import annotations

import os
import socket
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from compute.errors import ConfigError

if TYPE_CHECKING:
    from oslo_config.cfg import ConfigOpts

THREADING, EVENTLET = "threading", "eventlet"
_chosen: list[str] = []


def choose(executor: str) -> None:
    """Settle how this process runs things at a time; only the first call counts."""
    if _chosen:
        return
    _chosen.append(executor)
    if executor == EVENTLET:
        _patch()
    else:
        # Libraries import eventlet wherever it is installed; with threads it only costs memory and start-up time.
        sys.modules.setdefault("eventlet", None)  # type: ignore[arg-type]
    from oslo_service import backend

    backend.init_backend(backend.BackendType(executor))


def _patch() -> None:
    # That it is deprecated was known to who chose it; the log is no place to say it again at every start.
    warnings.filterwarnings("ignore", message=r"\s*Eventlet|eventletutils|The .oslo_service.eventlet")
    import eventlet

    eventlet.monkey_patch()


def check(conf: ConfigOpts) -> None:
    """Refuse what eventlet cannot do: SQLite deadlocks with itself, and libpq in C stops every green thread."""
    if conf.executor != EVENTLET:
        return
    for option in ("sql_connection", "transport_url"):
        if getattr(conf, option).startswith("sqlite"):
            raise ConfigError(f"executor = eventlet: {option} must not be SQLite, which deadlocks under it")
    if conf.sql_connection.startswith("postgresql") and os.environ.get("PSYCOPG_IMPL") != "python":
        raise ConfigError("executor = eventlet: psycopg's C code blocks it; set PSYCOPG_IMPL=python in the environment")


def is_green() -> bool:
    """True in a process that chose eventlet."""
    return _chosen == [EVENTLET]


class StopSignal:
    """Set once, from any thread or signal handler, and waited for by the main thread.

    A socket pair instead of threading.Event, whose lock a signal handler may find held by the very thread it
    interrupted; and under eventlet a byte wakes a hub that sleeps, which a green event does not.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)

    def set(self) -> None:
        """Ask for the end; again is harmless."""
        with suppress(OSError):  # full of such requests, or closed
            self._writer.send(b"x")

    def wait(self) -> None:
        """Block until somebody asked; later calls return at once."""
        self._reader.recv(1, socket.MSG_PEEK)

    def close(self) -> None:
        """Nobody waits any more."""
        self._reader.close()
        self._writer.close()


class Bell:
    """Rung from any thread, native ones of a green process too, and waited for by one thread."""

    def __init__(self) -> None:
        self._reader, theirs = socket.socketpair()
        self._writer = _native_socket(theirs)
        self._writer.setblocking(False)

    def ring(self) -> None:
        """Wake the waiter, or spare it the next wait."""
        with suppress(OSError):  # full of rings, or closed
            self._writer.send(b"x")

    def wait(self, timeout_s: float) -> bool:
        """True once it was rung, however often; False at the timeout."""
        self._reader.settimeout(timeout_s)
        try:
            return bool(self._reader.recv(4096))
        except TimeoutError:
            return False

    def close(self) -> None:
        """Nobody waits any more."""
        self._reader.close()
        self._writer.close()


def _native_socket(given: socket.socket) -> Any:
    """The same socket for native threads, in a green process."""
    if not is_green():
        return given
    from eventlet import patcher

    return patcher.original("socket").socket(fileno=given.detach())


class GreenThreads:
    """Native threads for a green process's blocking calls: the Threads of virt.threads."""

    def start(self, work: Callable[[], None], name: str) -> None:
        """Run `work` in a native thread that does not keep the process alive."""
        from eventlet import patcher

        patcher.original("threading").Thread(target=work, name=name, daemon=True).start()

    def event(self) -> NativeEvent:
        """An event that such a thread sets and a green one waits for."""
        return NativeEvent()


class NativeEvent:
    """Set once in a native thread by a byte through the kernel, because a green event does not hear native threads.

    Waited for once.
    """

    def __init__(self) -> None:
        self._reader, theirs = socket.socketpair()
        self._writer = _native_socket(theirs)

    def set(self) -> None:
        """Wake the waiter."""
        with suppress(OSError), self._writer:  # the waiter has gone
            self._writer.send(b"x")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until set; False at the timeout."""
        with self._reader:
            self._reader.settimeout(timeout)
            try:
                return bool(self._reader.recv(1))
            except TimeoutError:
                return False


def driver_threads() -> GreenThreads | None:
    """What a driver runs blocking C calls on; None: plain threads do."""
    return GreenThreads() if is_green() else None
