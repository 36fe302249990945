"""What fake hosts share: volumes, guests handed over from host to host, tickets for them, a directory of files.

In memory for hosts of one process, or in a directory for hosts of several. Every operation is atomic.
"""

from __future__ import annotations

import contextlib
import os
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from urllib.parse import quote

from virt.errors import DriverConfigError, VolumeError


class Commons(ABC):
    """What fake hosts share."""

    @abstractmethod
    def enrol(self, host: str) -> None:
        """Make a host known to the others."""

    @abstractmethod
    def knows(self, host: str) -> bool:
        """True if there is such a host."""

    @abstractmethod
    def claim_volume(self, volume_id: int, holder: str) -> None:
        """Take a volume for `holder` (a guest's uuid), or keep it; VolumeError when another has it."""

    @abstractmethod
    def release_volume(self, volume_id: int, holder: str) -> None:
        """Give a volume back; no effect when `holder` does not have it."""

    @abstractmethod
    def stage(self, source: str, token: str, record: str) -> None:
        """Lay a guest's record ready to be sent."""

    @abstractmethod
    def is_staged(self, source: str, token: str) -> bool:
        """True from `stage` until `send` or `unstage`."""

    @abstractmethod
    def unstage(self, source: str, token: str) -> None:
        """Take a record back; no effect when it is not there."""

    @abstractmethod
    def send(self, source: str, dest: str, token: str) -> None:
        """Pass a staged record to `dest`: the one moment at which a guest changes hosts."""

    @abstractmethod
    def arrivals(self, host: str) -> list[tuple[str, str]]:
        """Records sent to a host, as (token, record)."""

    @abstractmethod
    def acknowledge(self, host: str, token: str) -> None:
        """Forget an arrival."""

    @abstractmethod
    def issue_ticket(self, host: str, name: str) -> None:
        """Note that a host is ready to take in a guest."""

    @abstractmethod
    def has_ticket(self, host: str, name: str) -> bool:
        """True between `issue_ticket` and `void_ticket`."""

    @abstractmethod
    def void_ticket(self, host: str, name: str) -> None:
        """Take the note back; no effect when there is none."""

    @abstractmethod
    def share_file(self, filename: str) -> None:
        """Make an empty file that every host sees."""

    @abstractmethod
    def sees_file(self, filename: str) -> bool:
        """True if that file is there."""

    @abstractmethod
    def remove_file(self, filename: str) -> None:
        """Remove it; succeed if it is gone."""


class MemoryCommons(Commons):
    """Shared by the hosts of one process; ends with it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hosts: dict[str, list[tuple[str, str]]] = {}
        self._volumes: dict[int, str] = {}
        self._staged: dict[tuple[str, str], str] = {}
        self._tickets: set[tuple[str, str]] = set()
        self._files: set[str] = set()

    def enrol(self, host: str) -> None:
        self._hosts.setdefault(host, [])

    def knows(self, host: str) -> bool:
        return host in self._hosts

    def claim_volume(self, volume_id: int, holder: str) -> None:
        if self._volumes.setdefault(volume_id, holder) != holder:
            raise VolumeError(f"volume {volume_id} is in use by guest {self._volumes.get(volume_id)}")

    def release_volume(self, volume_id: int, holder: str) -> None:
        with self._lock:
            if self._volumes.get(volume_id) == holder:
                del self._volumes[volume_id]

    def stage(self, source: str, token: str, record: str) -> None:
        self._staged[source, token] = record

    def is_staged(self, source: str, token: str) -> bool:
        return (source, token) in self._staged

    def unstage(self, source: str, token: str) -> None:
        self._staged.pop((source, token), None)

    def send(self, source: str, dest: str, token: str) -> None:
        with self._lock:
            self._hosts[dest].append((token, self._staged.pop((source, token))))

    def arrivals(self, host: str) -> list[tuple[str, str]]:
        inbox = self._hosts[host]
        return list(inbox) if inbox else inbox

    def acknowledge(self, host: str, token: str) -> None:
        with self._lock:
            self._hosts[host] = [mail for mail in self._hosts[host] if mail[0] != token]

    def issue_ticket(self, host: str, name: str) -> None:
        self._tickets.add((host, name))

    def has_ticket(self, host: str, name: str) -> bool:
        return (host, name) in self._tickets

    def void_ticket(self, host: str, name: str) -> None:
        self._tickets.discard((host, name))

    def share_file(self, filename: str) -> None:
        self._files.add(filename)

    def sees_file(self, filename: str) -> bool:
        return filename in self._files

    def remove_file(self, filename: str) -> None:
        self._files.discard(filename)


class DirectoryCommons(Commons):
    """Shared by every process that names the same directory."""

    def __init__(self, path: Path) -> None:
        """Make the directory; DriverConfigError when that cannot be."""
        self.path = path
        try:
            for part in (path, path / "volumes", path / "shared"):
                part.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise DriverConfigError(f"fake_state_path: {exc}") from exc

    def file_of(self, host: str, kind: str) -> Path:
        """Where a host keeps something: a file or directory named after it."""
        return self.path / f"{quote(host, safe='')}.{kind}"

    def enrol(self, host: str) -> None:
        for kind in ("inbox", "outbox", "ready"):
            self.file_of(host, kind).mkdir(mode=0o700, exist_ok=True)

    def knows(self, host: str) -> bool:
        return self.file_of(host, "inbox").is_dir()

    def claim_volume(self, volume_id: int, holder: str) -> None:
        claim = self.path / "volumes" / str(volume_id)
        # A symbolic link is made and read in one atomic call each, so no reader meets a half-written claim.
        try:
            claim.symlink_to(holder)
        except FileExistsError:
            owner = self._holder(claim)
            if owner != holder:
                raise VolumeError(f"volume {volume_id} is in use by guest {owner}") from None

    def release_volume(self, volume_id: int, holder: str) -> None:
        claim = self.path / "volumes" / str(volume_id)
        if self._holder(claim) == holder:
            claim.unlink(missing_ok=True)

    @staticmethod
    def _holder(claim: Path) -> str | None:
        with contextlib.suppress(FileNotFoundError):
            return str(claim.readlink())
        return None

    def stage(self, source: str, token: str, record: str) -> None:
        (self.file_of(source, "outbox") / token).write_text(record)

    def is_staged(self, source: str, token: str) -> bool:
        return (self.file_of(source, "outbox") / token).exists()

    def unstage(self, source: str, token: str) -> None:
        (self.file_of(source, "outbox") / token).unlink(missing_ok=True)

    def send(self, source: str, dest: str, token: str) -> None:
        (self.file_of(source, "outbox") / token).rename(self.file_of(dest, "inbox") / token)

    def arrivals(self, host: str) -> list[tuple[str, str]]:
        inbox = self.file_of(host, "inbox")
        return [(token, (inbox / token).read_text()) for token in os.listdir(inbox)]  # noqa: PTH208 - three times faster

    def acknowledge(self, host: str, token: str) -> None:
        (self.file_of(host, "inbox") / token).unlink(missing_ok=True)

    def issue_ticket(self, host: str, name: str) -> None:
        (self.file_of(host, "ready") / quote(name, safe="")).touch()

    def has_ticket(self, host: str, name: str) -> bool:
        return (self.file_of(host, "ready") / quote(name, safe="")).exists()

    def void_ticket(self, host: str, name: str) -> None:
        (self.file_of(host, "ready") / quote(name, safe="")).unlink(missing_ok=True)

    def share_file(self, filename: str) -> None:
        self._shared(filename).touch()

    def sees_file(self, filename: str) -> bool:
        return self._shared(filename).exists()

    def remove_file(self, filename: str) -> None:
        self._shared(filename).unlink(missing_ok=True)

    def _shared(self, filename: str) -> Path:
        return self.path / "shared" / quote(filename, safe="")
