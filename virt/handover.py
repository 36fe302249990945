"""Bring a finished file to where others will look for it: complete or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from contextlib import ExitStack
from pathlib import Path

from virt.disk import remove_file
from virt.driver import Progress
from virt.errors import disk_error

_CHUNK = 1024 * 1024
_PROGRESS_S = 2.0


def hand_over(source: Path, path: Path, progress: Progress) -> str:
    """Move a file to `path`, across file systems if need be, ours and readable by us alone; returns its sha256.

    `progress` may end it by raising; then, as on an error, nothing is at `path` and `source` is as it was. Raises
    DiskError, DiskFullError.
    """
    try:
        digest = _read(source, None, progress)
        os.chown(source, os.geteuid(), os.getegid())  # it may have been the hypervisor's, who must not change it now
        source.chmod(0o600)
        try:
            source.replace(path)
        except OSError as exc:
            if exc.errno != errno.EXDEV:
                raise
            _copy(source, path, progress)
            source.unlink()
    except OSError as exc:
        raise disk_error(exc, path) from exc
    return digest


def _copy(source: Path, path: Path, progress: Progress) -> None:
    part = path.with_name(f"{path.name}.part")
    with ExitStack() as undo:
        undo.callback(remove_file, part)
        part.unlink(missing_ok=True)
        target = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
        with os.fdopen(target, "wb"):
            _read(source, target, progress)
        part.replace(path)


def _read(source: Path, target: int | None, progress: Progress) -> str:
    """The sha256 of a file that is on disk for good on return, and so is its copy when there is a target for one."""
    digest, told, done = hashlib.sha256(), time.monotonic(), 0
    with source.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if target is not None:
                _write(target, chunk)
            if time.monotonic() - told > _PROGRESS_S:
                told = time.monotonic()
                progress(f"finishing: {done // 1024**2} MiB")
        os.fsync(file.fileno() if target is None else target)
    return digest.hexdigest()


def _write(target: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(target, view) :]
