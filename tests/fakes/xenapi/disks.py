"""The bytes of virtual disks: one sparse file each, as long as the disk's virtual size."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

CHUNK = 1 << 20


class Disks:
    """Disk files in a folder, by the VDI's uuid."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, uuid: str) -> Path:
        """The file of a disk."""
        return self.folder / f"{uuid}.raw"

    def create(self, uuid: str, size: int) -> None:
        """An empty disk, or one that has another size from now on."""
        with self.path(uuid).open("ab") as file:
            file.truncate(size)

    def remove(self, uuid: str) -> None:
        """Forget a disk; succeed if it is gone."""
        self.path(uuid).unlink(missing_ok=True)

    def copy(self, source: str, target: str) -> None:
        """Make a second disk with the same bytes."""
        with self.path(source).open("rb") as old, self.path(target).open("wb") as new:
            new.truncate(os.fstat(old.fileno()).st_size)
            for start, end in extents(old.fileno()):
                new.seek(start)
                old.seek(start)
                while (left := end - old.tell()) > 0:
                    new.write(old.read(min(left, CHUNK)))

    def read(self, uuid: str, offset: int = 0, size: int = -1) -> bytes:
        """Bytes of a disk."""
        with self.path(uuid).open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def write(self, uuid: str, offset: int, data: bytes) -> None:
        """Put bytes onto a disk; OSError (ENOSPC) beyond its end."""
        path = self.path(uuid)
        if offset + len(data) > path.stat().st_size:
            raise OSError(errno.ENOSPC, "beyond the disk's end", str(path))
        with path.open("r+b") as file:
            file.seek(offset)
            if data.count(0) == len(data) and file.read(len(data)) == data:
                return  # what is a hole stays one
            file.seek(offset)
            file.write(data)

    def used(self, uuid: str) -> int:
        """How many bytes are really stored."""
        path = self.path(uuid)
        return path.stat().st_blocks * 512 if path.exists() else 0


def extents(file: int) -> Iterator[tuple[int, int]]:
    """Start and end of each part of a file that is no hole."""
    size, at = os.fstat(file).st_size, 0
    while at < size:
        try:
            start = os.lseek(file, at, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                return
            raise
        at = os.lseek(file, start, os.SEEK_HOLE)
        yield start, at
