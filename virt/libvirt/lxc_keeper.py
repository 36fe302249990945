"""Keep what a container prints: a program by itself that outlives the daemon. LOG is rotated once it has a MiB.

    python -I -S lxc_keeper.py TERMINAL LOG LOCK

libvirt's container driver writes no log, and a container whose terminal nobody reads stands still once its buffer is
full. This returns when the terminal is being read, by itself or by the holder of LOCK; the reader ends with the
container.
Nothing but the standard library is imported, because there is one of these for each container.
"""

import fcntl
import os
import sys
import time

LIMIT = 1024 * 1024
_CHUNK = 65536
_TRIES, _WAIT_S = 20, 0.05
_OPEN_LOG = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def take(lock: str) -> int | None:
    """The lock's file descriptor, or None when a keeper has it. Tries for a second: somebody may only be looking."""
    held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    for _ in range(_TRIES):
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_WAIT_S)
        else:
            return held
    os.close(held)
    return None


def detach() -> None:
    """Let whoever started this go on, and belong to nobody."""
    if os.fork():
        os._exit(0)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)


def keep(terminal: int, log: str) -> None:
    """Copy until the terminal ends, or there is no directory for the log any more."""
    file = os.open(log, _OPEN_LOG, 0o600)
    while chunk := _read(terminal):
        os.write(file, chunk)
        if os.fstat(file).st_size >= LIMIT:
            os.close(file)
            os.replace(log, log + ".0")  # noqa: PTH105 - pathlib alone would double its memory
            file = os.open(log, _OPEN_LOG, 0o600)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, _CHUNK)
    except OSError:
        return b""


def main() -> None:
    """See above."""
    path, log, lock = sys.argv[1:]
    if take(lock) is None:
        return
    terminal = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    detach()
    try:
        keep(terminal, log)
    except OSError:
        os._exit(1)


if __name__ == "__main__":
    main()
