"""Look into an image before any program of the host is allowed to: what it is, how large, and whether it is safe.

Pure Python. An image's header is written by strangers, and qemu-img believes headers.
"""

from __future__ import annotations

import struct
from pathlib import Path

from oslo_utils.imageutils.format_inspector import (
    FileInspector,
    ImageFormatError,
    InspectWrapper,
    SafetyCheckFailed,
)

from virt.errors import ImageError

DISK_FORMATS = frozenset({"raw", "qcow2"})
PLAIN_FORMATS = frozenset({"aki", "ari"})
GIB = 1024**3

_CHUNK = 1024 * 1024
# A raw disk may hold anything that is not a disk image of its own: a partition table or a CD's file system is content.
_RAW_CONTENT = frozenset({"raw", "gpt", "iso"})
_QCOW2_CRYPT = slice(32, 36)
# VMDKs that the inspector takes for raw: a descriptor by itself, which names other files, and the oldest sparse kind.
_VMDK_STARTS = (b"# disk descriptorfile", b"cowd")


def inspect(path: Path, declared: str, name: str) -> int:
    """The virtual size, in bytes, of the image at `path`, which is said to be of format `declared`.

    Raises ImageError with `name` and the reason when it is of another format, refers to other files (backing file,
    data file), has features that nobody knows, is encrypted, or cannot be parsed.
    """
    if declared in PLAIN_FORMATS:
        return path.stat().st_size
    if declared not in DISK_FORMATS:
        raise ImageError(f"image {name}: disk format {declared} is not one of {', '.join(sorted(DISK_FORMATS))}")
    try:
        _refuse_bare_vmdk(path, name)
        found = _detect(path)
        _agree(found, declared, name)
        return path.stat().st_size if declared == "raw" else _qcow2_size(path, found[0], name)
    except SafetyCheckFailed as exc:
        reasons = "; ".join(str(failure) for failure in exc.failures.values())
        raise ImageError(f"image {name}: {reasons}") from exc
    except (ImageFormatError, struct.error) as exc:
        raise ImageError(f"image {name}: cannot be read as {declared}: {exc}") from exc


def refuse_if_larger(virtual_size: int, limit_gb: int, name: str) -> None:
    """Raise ImageError when an image does not fit a root disk of `limit_gb` GiB (0: no limit)."""
    if limit_gb and virtual_size > limit_gb * GIB:
        raise ImageError(f"image {name}: its virtual size, {_gib(virtual_size)} GiB, exceeds root_gb={limit_gb}")


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}".rstrip("0").rstrip(".")


def _detect(path: Path) -> list[FileInspector]:
    with path.open("rb") as file:
        wrapper = InspectWrapper(file)
        while wrapper.formats is None and wrapper.read(_CHUNK):
            pass
        wrapper.close()
        return list(wrapper.formats or [])


def _refuse_bare_vmdk(path: Path, name: str) -> None:
    with path.open("rb") as file:
        if file.read(64).lower().startswith(_VMDK_STARTS):
            raise ImageError(f"image {name}: its content is vmdk")


def _agree(found: list[FileInspector], declared: str, name: str) -> None:
    names = {str(inspector) for inspector in found}
    allowed = _RAW_CONTENT if declared == "raw" else {declared}
    if not names <= allowed or (declared != "raw" and len(names) != 1):
        raise ImageError(f"image {name}: declared {declared}, but its content is {' and '.join(sorted(names))}")


def _qcow2_size(path: Path, inspector: FileInspector, name: str) -> int:
    inspector.safety_check()
    with path.open("rb") as file:
        header = file.read(_QCOW2_CRYPT.stop)
    if any(header[_QCOW2_CRYPT]):
        raise ImageError(f"image {name}: encrypted images are not supported")
    return int(inspector.virtual_size)
