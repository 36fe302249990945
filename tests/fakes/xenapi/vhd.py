"""The VHD format (dynamic and fixed disks, no chains), read from and written as a stream."""

from __future__ import annotations

import io
import os
import struct
import uuid
from collections.abc import Iterator
from typing import BinaryIO

from tests.fakes.xenapi.disks import Disks, extents

SECTOR, BLOCK = 512, 2 << 20
BITMAP = 512
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
NOWHERE = 0xFFFFFFFF
_FOOTER = struct.Struct(">8sIIQI4sI4sQQHBBII16sB427x")
_HEADER = struct.Struct(">8sQQIIII16sII512s192s256x")


class VhdError(Exception):
    """These bytes are no VHD that a disk can be made of."""


def write(disks: Disks, disk: str) -> Iterator[bytes]:
    """A dynamic VHD of a disk, piece by piece; only blocks with data."""
    with disks.path(disk).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        blocks = sorted({at // BLOCK for start, end in extents(file.fileno()) for at in _steps(start, end)})
        count = -(-size // BLOCK)
        footer, table_bytes = _footer(size), -(-count * 4 // SECTOR) * SECTOR
        first = (SECTOR + 1024 + table_bytes) // SECTOR
        table = [NOWHERE] * (table_bytes // 4)
        for index, block in enumerate(blocks):
            table[block] = first + index * (BITMAP + BLOCK) // SECTOR
        yield footer + _header(count) + struct.pack(f">{len(table)}I", *table)
        for block in blocks:
            file.seek(block * BLOCK)
            yield b"\xff" * BITMAP + file.read(BLOCK).ljust(BLOCK, b"\0")
        yield footer


def _steps(start: int, end: int) -> range:
    return range(start - start % BLOCK, end, BLOCK)


def _checksum(data: bytes) -> int:
    return ~sum(data) & 0xFFFFFFFF


def _footer(size: int) -> bytes:
    cylinders = min(size // SECTOR // (16 * 63), 65535)
    unique = uuid.uuid4().bytes

    def packed(checksum: int) -> bytes:
        return _FOOTER.pack(b"conectix", 2, 0x10000, SECTOR, 0, b"tap\0", 0x10003, b"\0\0\0\0", size, size, cylinders,
                            16, 63, DYNAMIC, checksum, unique, 0)  # fmt: skip

    return packed(_checksum(packed(0)))


def _header(count: int) -> bytes:
    def packed(checksum: int) -> bytes:
        return _HEADER.pack(b"cxsparse", 0xFFFFFFFFFFFFFFFF, SECTOR + 1024, 0x10000, count, BLOCK, checksum, b"", 0, 0,
                            b"", b"")  # fmt: skip

    return packed(_checksum(packed(0)))


def read(file: BinaryIO, disks: Disks, disk: str) -> None:
    """Put the contents of a VHD file onto a disk; VhdError, and OSError (ENOSPC) when the disk is too small."""
    end = file.seek(0, io.SEEK_END)
    if end < SECTOR:
        raise VhdError("shorter than a footer")
    size, kind, header_at = _parse_footer(_at(file, end - SECTOR, SECTOR))
    if kind == FIXED:
        _copy_fixed(file, size, disks, disk)
    elif kind == DYNAMIC:
        _copy_dynamic(file, header_at, size, disks, disk)
    else:
        raise VhdError(f"a disk of type {kind} needs its parents")


def virtual_size(footer: bytes) -> int:
    """The size of the disk that a footer describes."""
    return _parse_footer(footer)[0]


def _parse_footer(raw: bytes) -> tuple[int, int, int]:
    fields = _FOOTER.unpack(raw)
    if fields[0] != b"conectix":
        raise VhdError("no footer at the end")
    if _checksum(raw[:64] + bytes(4) + raw[68:]) != fields[14]:
        raise VhdError("the footer's checksum is wrong")
    return fields[9], fields[13], fields[3]


def _copy_fixed(file: BinaryIO, size: int, disks: Disks, disk: str) -> None:
    for at in range(0, size, BLOCK):
        disks.write(disk, at, _at(file, at, min(BLOCK, size - at)))


def _copy_dynamic(file: BinaryIO, header_at: int, size: int, disks: Disks, disk: str) -> None:
    magic, _, table_at, _, count, block, checksum, *_ = _HEADER.unpack(raw := _at(file, header_at, 1024))
    if magic != b"cxsparse" or _checksum(raw[:36] + bytes(4) + raw[40:]) != checksum:
        raise VhdError("no dynamic disk header, or its checksum is wrong")
    if size > disks.path(disk).stat().st_size:
        disks.write(disk, size - 1, b"\0")  # fails
    bitmap = -(-(block // SECTOR // 8) // SECTOR) * SECTOR
    for index, sector in enumerate(struct.unpack(f">{count}I", _at(file, table_at, count * 4))):
        if sector != NOWHERE:
            start = index * block
            data = _at(file, sector * SECTOR + bitmap, min(block, size - start))
            disks.write(disk, start, data)


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise VhdError(f"ends at byte {offset + len(data)}, expected {offset + size}")
    return data
