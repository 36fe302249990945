"""Look into an image before any program of the host is allowed to: what it is, how large, and whether it is safe.

Pure Python. An image's header is written by strangers, and qemu-img believes headers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from oslo_utils.imageutils.format_inspector import (
    FileInspector,
    ImageFormatError,
    InspectWrapper,
    SafetyCheckFailed,
)

from virt import qcow2
from virt.errors import ImageError

DISK_FORMATS = frozenset({"raw", "qcow2"})
PLAIN_FORMATS = frozenset({"aki", "ari"})
ARCHIVE_FORMATS = frozenset({"tar"})
XEN_FORMATS = frozenset({"vhd"})
FORMATS = DISK_FORMATS | PLAIN_FORMATS | ARCHIVE_FORMATS | XEN_FORMATS
GIB = 1024**3

_CHUNK = 1024 * 1024
# A raw disk may hold anything that is not a disk image of its own: a partition table or a CD's file system is content.
_RAW_CONTENT = frozenset({"raw", "gpt", "iso"})
_VHD_KIND, _VHD_DYNAMIC = slice(60, 64), 3
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")
_USTAR = slice(257, 262)
# VMDKs that the inspector takes for raw: a descriptor by itself, which names other files, and the oldest sparse kind.
_VMDK_STARTS = (b"# disk descriptorfile", b"cowd")


def inspect(path: Path, declared: str, name: str) -> int:
    """The virtual size, in bytes, of the image at `path`, which is said to be of format `declared`.

    Raises ImageError with `name` and the reason when it is of another format, refers to other files (backing file,
    data file), has features that nobody knows, is encrypted, has snapshots in it, or cannot be parsed.
    """
    if declared in PLAIN_FORMATS:
        return path.stat().st_size
    if declared in ARCHIVE_FORMATS:
        _refuse_unless_archive(path, name)
        return path.stat().st_size
    if declared not in DISK_FORMATS | XEN_FORMATS:
        raise ImageError(f"image {name}: disk format {declared} is not one of {', '.join(sorted(DISK_FORMATS))}, vhd")
    try:
        _refuse_bare_vmdk(path, name)
        found = _detect(path)
        _agree(found, declared, name)
        return _SIZES[declared](path, found[0], name)
    except SafetyCheckFailed as exc:
        reasons = "; ".join(str(failure) for failure in exc.failures.values())
        raise ImageError(f"image {name}: {reasons}") from exc
    except (ImageFormatError, struct.error) as exc:
        raise ImageError(f"image {name}: cannot be read as {declared}: {exc}") from exc


def refuse_cut_short(path: Path, disk_format: str, name: str, guard: Callable[[], None] = lambda: None) -> None:
    """Raise ImageError when an image that was inspected lacks a part of what it refers to; `guard` is called often.

    It reads all tables of the image, so it is for an image that has just come.
    """
    if disk_format == "qcow2":
        qcow2.refuse_cut_short(path, name, guard)


def refuse_if_larger(virtual_size: int, root_gb: int, name: str, *, largest_gb: int) -> None:
    """Raise ImageError when an image does not fit a root disk of `root_gb` GiB.

    A flavor without a root size takes any image up to `largest_gb`: a small file may claim to be a vast disk.
    """
    what, limit_gb = ("root_gb", root_gb) if root_gb else ("max_image_gb", largest_gb)
    if virtual_size > limit_gb * GIB:
        raise ImageError(f"image {name}: its virtual size, {_gib(virtual_size)} GiB, exceeds {what}={limit_gb}")


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


def _refuse_unless_archive(path: Path, name: str) -> None:
    """What is in it is found out when it is unpacked, under limits; this is to say early that it is something else."""
    with path.open("rb") as file:
        start = file.read(_USTAR.stop)
    if not (start.startswith(_COMPRESSED) or start[_USTAR] == b"ustar"):
        raise ImageError(f"image {name}: its content is no tar archive, plain or compressed by gzip, bzip2 or xz")


def _agree(found: list[FileInspector], declared: str, name: str) -> None:
    names = {str(inspector) for inspector in found}
    allowed = _RAW_CONTENT if declared == "raw" else {declared}
    if not names <= allowed or (declared != "raw" and len(names) != 1):
        raise ImageError(f"image {name}: declared {declared}, but its content is {' and '.join(sorted(names))}")


def _qcow2_size(path: Path, inspector: FileInspector, name: str) -> int:
    inspector.safety_check()
    qcow2.refuse_unsound(path, name)
    return int(inspector.virtual_size)


def _raw_size(path: Path, _inspector: FileInspector, _name: str) -> int:
    return path.stat().st_size


def _vhd_size(path: Path, inspector: FileInspector, name: str) -> int:
    """A differencing VHD names another file as its parent; a fixed one is raw, and has its header at its end."""
    with path.open("rb") as file:
        kind = int.from_bytes(file.read(_VHD_KIND.stop)[_VHD_KIND], "big")
    if kind != _VHD_DYNAMIC:
        raise ImageError(f"image {name}: only dynamic VHDs are supported, this one is of type {kind}")
    return int(inspector.virtual_size)


_SIZES = {"raw": _raw_size, "qcow2": _qcow2_size, "vhd": _vhd_size}
