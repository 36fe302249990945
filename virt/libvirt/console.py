"""The end of what a guest printed, without reading all of it."""

from __future__ import annotations

from pathlib import Path

from virt.errors import DiskError


def tail(log: Path, max_bytes: int) -> str:
    """The last `max_bytes` bytes of a console log that virtlogd rotates, undecodable bytes replaced."""
    try:
        newest = _end_of(log, max_bytes)
        older = _end_of(log.with_name(log.name + ".0"), max_bytes - len(newest))
    except OSError as exc:
        raise DiskError(f"{log}: {exc.strerror}") from exc
    return (older + newest).decode(errors="replace")


def _end_of(path: Path, max_bytes: int) -> bytes:
    if max_bytes <= 0:
        return b""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - max_bytes))
            return file.read(max_bytes)
    except FileNotFoundError:
        return b""
