"""A host's guests in a file: one appended line a change, compacted now and then.

A line reaches the kernel in one write, so it outlives the process (not a power cut: nothing is synced). A line that a
kill cut short is dropped when the file is opened again.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from virt.errors import DriverConfigError, HypervisorError
from virt.fake.records import Footprint, dump, parse

_SPARE_LINES = 1000


class Journal:
    """The file of one host, locked against a second writer for as long as it is open."""

    def __init__(self, path: Path) -> None:
        """Open and lock; DriverConfigError when another driver has it open."""
        self._path = path
        self._lock_fd = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(self._lock_fd)
            raise DriverConfigError(f"fake_state_path: {path} is in use by another driver") from exc
        self._fd = -1
        self._lines = 0
        self.notes: dict[str, Any] = {}

    def load(self) -> dict[str, Footprint]:
        """Every footprint as it was when the last writer ended; also makes the file ready for writing."""
        held: dict[str, Footprint] = {}
        if self._path.exists():
            for line in self._path.read_bytes().split(b"\n")[:-1]:
                if line.startswith(b"="):
                    self.notes.update(json.loads(line[1:]))
                elif line.startswith(b"-"):
                    held.pop(json.loads(line[1:]), None)
                else:
                    footprint = parse(line)
                    held[footprint.name] = footprint
        self._rewrite(held)
        return held

    def put(self, footprint: Footprint, others: dict[str, Footprint]) -> None:
        """Record a footprint; `others` is all that is held, for a compaction that may be due."""
        self._append(dump(footprint) + "\n", others)

    def drop(self, name: str, others: dict[str, Footprint]) -> None:
        """Record that nothing is held under a name any more."""
        self._append(f"-{json.dumps(name)}\n", others)

    def note(self, key: str, value: Any, others: dict[str, Footprint]) -> None:
        """Record a fact about the host itself; `notes` has them after `load`."""
        self.notes[key] = value
        self._append(f"={json.dumps({key: value})}\n", others)

    def close(self) -> None:
        """Let go of the file and its lock; twice does no harm."""
        for fd in (self._fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lock_fd = -1

    def _append(self, line: str, others: dict[str, Footprint]) -> None:
        if self._fd < 0:
            raise HypervisorError(f"{self._path} is closed")
        os.write(self._fd, line.encode())
        self._lines += 1
        if self._lines > 4 * len(others) + _SPARE_LINES:
            self._rewrite(others)

    def _rewrite(self, held: dict[str, Footprint]) -> None:
        fresh = self._path.with_suffix(".new")
        lines = [f"={json.dumps(self.notes)}", *(dump(footprint) for footprint in held.values())]
        fresh.write_text("\n".join(lines) + "\n")
        fresh.replace(self._path)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        self._lines = len(lines)
