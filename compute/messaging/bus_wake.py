"""Wake-ups between processes: one datagram socket per endpoint, in one directory beside the bus file.

A letter is a datagram: empty, it says "look into the file"; else it is a message to a reader that must be alive
anyway. The kernel tells at once when the reader is gone, in every pid namespace, so a socket is also the proof of life.
"""

import enum
import os
import select
import socket
import stat
from contextlib import suppress
from pathlib import Path

MAX_LETTER_BYTES = 32 * 1024
RING = b""


class WakeError(Exception):
    """The wake-up directory cannot be used; the text names it."""


class Delivery(enum.Enum):
    """What became of a letter."""

    DELIVERED = "delivered"
    FULL = "full"  # the reader lives, but there is no room for the letter now
    GONE = "gone"  # the reader has ended


class Doorbell:
    """The reading end of an endpoint's socket, for one thread; `ring` is for any."""

    def __init__(self, bound: socket.socket) -> None:
        self._socket = bound
        self._poll = select.poll()
        self._poll.register(bound, select.POLLIN)

    def wait(self, timeout_s: float) -> list[bytes]:
        """Sleep until a letter comes or the time is up; return all that have come, none on timeout."""
        letters: list[bytes] = []
        if not self._poll.poll(max(0.0, timeout_s) * 1000):
            return letters
        with suppress(BlockingIOError):
            while True:
                letters.append(self._socket.recv(MAX_LETTER_BYTES))
        return letters

    def close(self) -> None:
        """Close the socket; whoever writes to it from now on is told so."""
        self._socket.close()


class WakeDirectory:
    """The sockets of every endpoint of a bus, and the means to write to them; safe for many threads."""

    def __init__(self, path: Path) -> None:
        """Open the directory, creating it with mode 0700; raise WakeError if others could use it."""
        self.path = path
        try:
            path.mkdir(mode=0o700, exist_ok=True)
            self._directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as exc:
            raise WakeError(f"cannot open the bus's socket directory {path}: {exc.strerror}") from exc
        try:
            self._owner = self._checked_owner()
        except WakeError:
            os.close(self._directory)
            raise
        # Unread letters count against their sender's buffer: with one socket for both, a few long ones to a stuck
        # reader would silence the wake-ups for all the others.
        self._ringer = _nonblocking_socket()
        self._sender = _nonblocking_socket()

    def open(self, name: str) -> Doorbell:
        """Bind a new endpoint's socket."""
        bound = _nonblocking_socket()
        try:
            bound.bind(self._address(name))
            os.chmod(name, 0o600, dir_fd=self._directory)
            if os.geteuid() == 0:
                # A command run by root must hear the replies of a daemon that is not root.
                os.chown(name, self._owner, -1, dir_fd=self._directory)
        except OSError as exc:
            bound.close()
            raise WakeError(f"cannot create a socket in {self.path}: {exc.strerror}") from exc
        return Doorbell(bound)

    def post(self, name: str, letter: bytes = RING) -> Delivery:
        """Send a letter without ever waiting; RING, the default, only wakes the reader."""
        through = self._sender if letter else self._ringer
        try:
            through.sendto(letter, self._address(name))
        except (ConnectionRefusedError, FileNotFoundError):
            return Delivery.GONE
        except OSError:
            # A full queue, no buffer space, no permission. Whatever is in the file the reader finds when it reads the
            # letters it has, or by its fallback look.
            return Delivery.FULL
        return Delivery.DELIVERED

    def is_alive(self, name: str) -> bool:
        """Say whether an endpoint's process still holds its socket, without waking it."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(self._address(name))
            except (ConnectionRefusedError, FileNotFoundError):
                return False
            except OSError:
                return True  # cannot tell, so nothing of its is removed
        return True

    def names(self) -> set[str]:
        """Name every endpoint that has a socket file, alive or not."""
        return {entry.name for entry in self.path.iterdir()}

    def remove(self, name: str) -> None:
        """Remove an endpoint's socket file; succeed if it is already gone."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._directory)

    def close(self) -> None:
        """Close the writing end; endpoints opened here stay open."""
        self._ringer.close()
        self._sender.close()
        os.close(self._directory)
        self._directory = -1  # the number will be given to some other file

    def _address(self, name: str) -> str:
        # A socket's path may have 107 bytes; by way of the directory's descriptor the bus may lie as deep as it likes.
        return f"/proc/self/fd/{self._directory}/{name}"

    def _checked_owner(self) -> int:
        status = os.fstat(self._directory)
        if os.geteuid() not in (0, status.st_uid):
            raise WakeError(f"{self.path} belongs to user id {status.st_uid}, not to {os.geteuid()}")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise WakeError(f"{self.path} is open to other users: it must have mode 0700")
        return status.st_uid


def _nonblocking_socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.setblocking(False)
    return made
