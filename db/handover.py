"""Hands SQLite's write lock from process to process without delay.

SQLite lets a waiting writer poll, and its own polling backs off to 100 ms. Here who has committed rings a named pipe
beside the database file, and who waits is woken by that and tries at once. It is only a doorbell: the lock is
SQLite's, a lost ring costs one pause, and a process that dies takes nothing with it.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import stat
import termios
from pathlib import Path

PAUSE_S = 0.002
SUFFIX = "-turn"


class Handover:
    """One database file's doorbell; where no pipe can be made, waiting is a plain pause."""

    def __init__(self, database: str | None) -> None:
        """database: the path of a file that need not exist yet; None or `:memory:`: there is nobody else."""
        self._fd = -1
        if database and database != ":memory:":
            with contextlib.suppress(OSError):
                self._fd = _pipe(Path(database + SUFFIX))

    def close(self) -> None:
        """Let go of the pipe; the file stays for the others."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def ring(self) -> None:
        """The lock is free: wake one who waits, or the next one who will."""
        if self._fd < 0:
            return
        unread = array.array("i", [0])
        fcntl.ioctl(self._fd, termios.FIONREAD, unread)
        if not unread[0]:
            with contextlib.suppress(BlockingIOError):
                os.write(self._fd, b".")

    def wait(self) -> None:
        """Until somebody rings, PAUSE_S at the most."""
        if self._fd < 0:
            select.select([], [], [], PAUSE_S)
            return
        select.select([self._fd], [], [], PAUSE_S)
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 1)


def _pipe(path: Path) -> int:
    """Open the pipe, made unless it is there; any number of processes may do it at once."""
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    if not stat.S_ISFIFO(path.stat().st_mode):
        raise FileExistsError(f"{path} is not a pipe")
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
