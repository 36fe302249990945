"""Make and change disk files. The only module that runs qemu-img: always with a format, limits and a deadline."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from virt.errors import DiskError, DiskFullError, ProcessError
from virt.execute import Execute, Limits, run

_LIMITS = Limits(address_space=4 * 1024**3, cpu_s=300)
_QUICK_S, _COPY_S = 60.0, 3600.0


class Disks:
    """Disk files of this host. Every path is a file that we made or inspected; every size is in bytes."""

    def __init__(self, execute: Execute = run, qemu_img: str = "qemu-img") -> None:
        self._execute, self._program = execute, qemu_img

    def create_overlay(self, path: Path, base: Path, base_format: str, size: int) -> None:
        """A qcow2 at `path` that reads `base` where it was not written; the base's format is recorded, not guessed."""
        options = f"backing_file={_option(base)},backing_fmt={base_format},lazy_refcounts=on"
        self._qemu_img(["create", "-q", "-f", "qcow2", "-o", options, str(path), str(size)])

    def create_empty(self, path: Path, size: int) -> None:
        """A sparse raw disk that reads as zeros."""
        try:
            with path.open("xb") as file:
                path.chmod(0o600)
                file.truncate(size)
        except OSError as exc:
            raise _disk_error(exc, path) from exc

    def create_swap(self, path: Path, size: int) -> None:
        """A raw disk that a guest can swap to as it is."""
        self.create_empty(path, size)
        self._run(["mkswap", str(path)], _QUICK_S)

    def copy(self, source: Path, source_format: str, path: Path, size: int, into: str = "qcow2") -> None:
        """A disk of `size` at `path`, in the format `into`, with the content of `source`, which it does not need."""
        self._qemu_img(["convert", "-q", "-f", source_format, "-O", into, str(source), str(path)], _COPY_S)
        self.grow(path, into, size)

    def flatten(self, source: Path, path: Path, guard: Callable[[], None]) -> None:
        """A qcow2 at `path` with all that the qcow2 `source` shows, which needs neither it nor its base.

        `guard` is called now and then; when it raises, the work ends at once.
        """
        self._qemu_img(["convert", "-q", "-f", "qcow2", "-O", "qcow2", str(source), str(path)], _COPY_S, guard=guard)

    def grow(self, path: Path, disk_format: str, size: int) -> None:
        """Make a disk that no guest uses at least `size` large; never shrinks it."""
        if self.virtual_size(path, disk_format) < size:
            self._qemu_img(["resize", "-q", "-f", disk_format, str(path), str(size)])

    def virtual_size(self, path: Path, disk_format: str) -> int:
        """The size that a guest sees."""
        info = self._qemu_img(["info", "-U", "--output=json", "-f", disk_format, str(path)])
        return int(json.loads(info)["virtual-size"])

    def _qemu_img(self, words: list[str], timeout_s: float = _QUICK_S, **more: Callable[[], None]) -> str:
        return self._run([self._program, *words], timeout_s, **more)

    def _run(self, cmd: list[str], timeout_s: float, **more: Callable[[], None]) -> str:
        try:
            return self._execute(cmd, timeout_s=timeout_s, limits=_LIMITS, **more)
        except ProcessError as exc:
            full = os.strerror(errno.ENOSPC) in exc.stderr
            raise (DiskFullError if full else DiskError)(str(exc)) from exc


def remove_tree(path: Path) -> None:
    """Remove a directory with everything in it; succeed if it is gone. Raises DiskError."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError as exc:
        raise _disk_error(exc, path) from exc


def remove_file(path: Path) -> None:
    """Remove a file; succeed if it is gone. Raises DiskError."""
    try:
        path.unlink(missing_ok=True)
    except OSError as exc:
        raise _disk_error(exc, path) from exc


def _disk_error(exc: OSError, path: Path) -> DiskError:
    kind = DiskFullError if exc.errno in {errno.ENOSPC, errno.EDQUOT} else DiskError
    return kind(f"{path}: {exc.strerror}")


def _option(path: Path) -> str:
    """A path as a value among comma-separated options."""
    return str(path).replace(",", ",,")
