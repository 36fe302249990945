"""Make and change disk files, which nobody but their owner may read.

The only module that runs qemu-img: always with a format, limits and a deadline.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from virt import qcow2
from virt.errors import DiskError, DiskFullError, ImageError, ProcessError, disk_error
from virt.execute import Execute, Limits, run

_ADDRESS_SPACE, _CPU_S = 4 * 1024**3, 300
_QUICK_S, _COPY_S = 60.0, 3600.0
_SLOWEST = 50 * 1024**2  # bytes a second that a copy of a large disk is given time for
_OWNERS_ALONE = 0o077


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
            raise disk_error(exc, path) from exc

    def create_swap(self, path: Path, size: int) -> None:
        """A raw disk that a guest can swap to as it is."""
        self.create_empty(path, size)
        self._run(["mkswap", str(path)], _QUICK_S)

    def copy(self, source: Path, source_format: str, path: Path, size: int, into: str = "qcow2") -> None:
        """A disk of `size` at `path`, in the format `into`, with the content of `source`, which it does not need."""
        self._convert(source, source_format, path, into, size)
        self.grow(path, into, size)

    def flatten(self, source: Path, base: Path, path: Path, guard: Callable[[], None]) -> None:
        """A qcow2 at `path` with all that the qcow2 `source` shows, which needs neither it nor its `base`.

        A source that refers to any other file is refused: whoever broke out into QEMU could have written that, to have
        it read with our powers. `guard` is called now and then; when it raises, the work ends at once.
        """
        _refuse_strangers(source, base)
        self._convert(source, "qcow2", path, "qcow2", self.virtual_size(source, "qcow2"), guard=guard)

    def grow(self, path: Path, disk_format: str, size: int) -> None:
        """Make a disk that no guest uses at least `size` large; never shrinks it."""
        if self.virtual_size(path, disk_format) < size:
            self._qemu_img(["resize", "-q", "-f", disk_format, str(path), str(size)])

    def virtual_size(self, path: Path, disk_format: str) -> int:
        """The size that a guest sees."""
        info = self._qemu_img(["info", "-U", "--output=json", "-f", disk_format, str(path)])
        return int(json.loads(info)["virtual-size"])

    def _convert(
        self, source: Path, source_format: str, path: Path, into: str, size: int, **more: Callable[[], None]
    ) -> None:
        words = ["convert", "-q", "-f", source_format, "-O", into, str(source), str(path)]
        self._qemu_img(words, _COPY_S, size // _SLOWEST, **more)

    def _qemu_img(
        self, words: list[str], timeout_s: float = _QUICK_S, more_s: int = 0, **more: Callable[[], None]
    ) -> str:
        return self._run([self._program, *words], timeout_s, more_s, **more)

    def _run(self, cmd: list[str], timeout_s: float, more_s: int = 0, **more: Callable[[], None]) -> str:
        """`more_s`: seconds, of the clock and of the processor, beside what a small disk is given."""
        limits = Limits(address_space=_ADDRESS_SPACE, cpu_s=_CPU_S + more_s)
        try:
            return self._execute(cmd, timeout_s=timeout_s + more_s, limits=limits, umask=_OWNERS_ALONE, **more)
        except ProcessError as exc:
            full = os.strerror(errno.ENOSPC) in exc.stderr
            raise (DiskFullError if full else DiskError)(str(exc)) from exc


def _refuse_strangers(path: Path, base: Path) -> None:
    try:
        strangers = set(qcow2.refers_to(path, path.name)) - {str(base)}
    except ImageError as exc:
        raise DiskError(f"{path}: {exc}") from exc
    except OSError as exc:
        raise disk_error(exc, path) from exc
    if strangers:
        raise DiskError(f"{path}: refers to {', '.join(sorted(strangers)):.200}, and may refer to {base} alone")


def remove_tree(path: Path) -> None:
    """Remove a directory with everything in it; succeed if it is gone. Raises DiskError."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError as exc:
        raise disk_error(exc, path) from exc


def remove_file(path: Path) -> None:
    """Remove a file; succeed if it is gone. Raises DiskError."""
    try:
        path.unlink(missing_ok=True)
    except OSError as exc:
        raise disk_error(exc, path) from exc


def _option(path: Path) -> str:
    """A path as a value among comma-separated options."""
    return str(path).replace(",", ",,")
