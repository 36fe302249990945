"""The tables of a qcow2 image, read before QEMU reads them: whether they are sane, and whether all of them came.

QEMU opens an image whose end is missing, and the guest finds out later; and it believes table sizes that a stranger
wrote.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from virt.errors import ImageError

_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")  # version 2; version 3 goes on with its features
_FEATURES = struct.Struct(">Q")
_CORRUPT, _DATA_FILE = 1 << 1, 1 << 2
_OFFSET = 0x00FF_FFFF_FFFF_FE00
_COMPRESSED = 1 << 62
_MOST_L1_BYTES = 32 * 1024**2  # QEMU's own limits
_MOST_REFCOUNT_BYTES = 8 * 1024**2
_CLUSTER_BITS = range(9, 22)
_LONGEST_NAME = 1023


@dataclass(frozen=True, slots=True)
class Header:
    """What the first bytes say. size: the virtual disk's, in bytes; l1_size in entries of 8 bytes."""

    version: int
    cluster_bits: int
    size: int
    encryption: int
    l1_size: int
    l1_offset: int
    refcount_offset: int
    refcount_clusters: int
    snapshots: int
    features: int
    backing_offset: int
    backing_length: int

    @property
    def cluster(self) -> int:
        """Bytes of a cluster."""
        return 1 << self.cluster_bits

    @property
    def l1_needed(self) -> int:
        """Entries that a disk of this size needs."""
        covered = self.cluster * self.cluster // 8
        return -(-self.size // covered)


def refuse_unsound(path: Path, name: str) -> None:
    """Raise ImageError for what no image has that a stranger may bring: encryption, snapshots, tables without sense."""
    with path.open("rb") as file:
        header = _read(file, name)
    held = path.stat().st_size
    faults = {
        "encrypted images are not supported": header.encryption != 0,
        "it is marked corrupt": bool(header.features & _CORRUPT),
        "it has internal snapshots": header.snapshots != 0,
        f"clusters of 2^{header.cluster_bits} bytes": header.cluster_bits not in _CLUSTER_BITS,
        f"a table of {header.l1_size} entries": header.l1_size * 8 > _MOST_L1_BYTES,
        f"a reference table of {header.refcount_clusters} clusters": (
            header.refcount_clusters << min(header.cluster_bits, 63) > _MOST_REFCOUNT_BYTES
        ),
    }
    for reason, is_so in faults.items():
        if is_so:
            raise ImageError(f"image {name}: {reason}")
    if header.l1_size < header.l1_needed:
        raise ImageError(f"image {name}: a table of {header.l1_size} entries, where {header.l1_needed} are needed")
    if max(header.l1_offset + header.l1_size * 8, header.refcount_offset) > held:
        raise ImageError(f"image {name}: it is cut short: its tables are beyond its end")


def refers_to(path: Path, name: str) -> list[str]:
    """The files that a disk says it goes on in: what it is an overlay of, and what has its data. Raises ImageError."""
    with path.open("rb") as file:
        header = _read(file, name)
        file.seek(header.backing_offset)
        backing = file.read(min(header.backing_length, _LONGEST_NAME)) if header.backing_offset else b""
    found = [backing.decode(errors="backslashreplace")] if backing else []
    return found + (["a data file"] if header.features & _DATA_FILE else [])


def refuse_cut_short(path: Path, name: str, guard: Callable[[], None]) -> None:
    """Raise ImageError when some of the image's clusters are not in the file. `guard` is called for each table."""
    held = path.stat().st_size
    with path.open("rb") as file:
        header = _read(file, name)
        tables = _numbers(file, header.l1_offset, min(header.l1_size, header.l1_needed))
        for offset in sorted({entry & _OFFSET for entry in tables} - {0}):
            guard()
            if offset + header.cluster > held or _last(file, offset, header) >= held:
                raise ImageError(f"image {name}: it is cut short: it has {held} bytes, and refers to more")


def _last(file: IO[bytes], offset: int, header: Header) -> int:
    """The highest place in the file that a table refers to."""
    packed = (1 << (70 - header.cluster_bits)) - 1
    entries = _numbers(file, offset, header.cluster // 8)
    return max(entry & packed if entry & _COMPRESSED else entry & _OFFSET for entry in entries)


def _read(file: IO[bytes], name: str) -> Header:
    start = file.read(_HEADER.size + _FEATURES.size)
    if len(start) < _HEADER.size:
        raise ImageError(f"image {name}: it is cut short: it has no whole header")
    (_magic, version, name_at, length, bits, size, encryption, l1_size, l1_at, counts_at, counts, snapshots, _at) = (
        _HEADER.unpack_from(start)
    )
    later = version > 2 and len(start) == _HEADER.size + _FEATURES.size
    features = _FEATURES.unpack_from(start, _HEADER.size)[0] if later else 0
    return Header(
        version, bits, size, encryption, l1_size, l1_at, counts_at, counts, snapshots, features, name_at, length
    )


def _numbers(file: IO[bytes], offset: int, count: int) -> Iterator[int]:
    """Big-endian numbers of eight bytes."""
    file.seek(offset)
    packed = file.read(count * 8)
    numbers = array("Q", packed[: len(packed) // 8 * 8])
    if sys.byteorder == "little":
        numbers.byteswap()
    return iter(numbers)
