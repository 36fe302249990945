"""Small read-only file systems as bytes: ISO 9660 with Rock Ridge (Linux reads it) and Joliet (Windows reads it).

The same files give the same bytes, whenever and wherever they are made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import PurePosixPath

import pycdlib

_SECTOR = 2048
_FIRST_DESCRIPTOR, _LAST_DESCRIPTOR = 16, 255
_ROOT_RECORD, _RECORD_HEAD, _RECORD_DATE, _NAME_LENGTH = 156, 33, slice(18, 25), 32
_THE_DATE = bytes((70, 1, 1, 0, 0, 0, 0))  # 1970-01-01, UTC
_THE_LONG_DATE, _NO_DATE = b"1970010100000000\0", b"0" * 16 + b"\0"
_DESCRIPTOR_DATES = {813: _THE_LONG_DATE, 830: _THE_LONG_DATE, 847: _NO_DATE, 864: _THE_LONG_DATE}


def image(files: Mapping[str, bytes], label: str) -> bytes:
    """A file system called `label` that holds `files`, by their paths without a leading slash."""
    made = pycdlib.PyCdlib()
    made.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=label)
    folders: dict[PurePosixPath, str] = {PurePosixPath("."): ""}
    for number, (path, content) in enumerate(sorted(files.items())):
        parent = _folder(made, folders, PurePosixPath(path).parent)
        made.add_fp(
            BytesIO(content), len(content), f"{parent}/F{number:07d}.;1", rr_name=PurePosixPath(path).name,
            joliet_path=f"/{path}", file_mode=0o100444,
        )  # fmt: skip
    out = BytesIO()
    made.write_fp(out)
    made.close()
    data = bytearray(out.getvalue())
    _forget_when(data)
    return bytes(data)


def _folder(made: pycdlib.PyCdlib, folders: dict[PurePosixPath, str], path: PurePosixPath) -> str:
    """The ISO 9660 path of a folder, which is made with those above it when it is not there."""
    if path not in folders:
        folders[path] = f"{_folder(made, folders, path.parent)}/D{len(folders):07d}"
        made.add_directory(folders[path], rr_name=path.name, joliet_path=f"/{path}", file_mode=0o040555)
    return folders[path]


def _forget_when(data: bytearray) -> None:
    """Overwrite every date: pycdlib writes the local time into all of them, and cannot be told another."""
    for sector in range(_FIRST_DESCRIPTOR, _LAST_DESCRIPTOR):
        start = sector * _SECTOR
        if data[start] == _LAST_DESCRIPTOR:
            return
        for offset, date in _DESCRIPTOR_DATES.items():
            data[start + offset : start + offset + len(date)] = date
        for record in _records(data, start + _ROOT_RECORD):
            data[record + _RECORD_DATE.start : record + _RECORD_DATE.stop] = _THE_DATE
            _forget_time_stamps(data, record)


def _records(data: bytearray, record: int) -> Iterator[int]:
    """Where the directory records of a folder are, of those in it and its own, given the one that points at it."""
    yield record
    start = int.from_bytes(data[record + 2 : record + 6], "little") * _SECTOR
    end = start + int.from_bytes(data[record + 10 : record + 14], "little")
    inner = start
    while inner < end:
        if not data[inner]:  # no record crosses a sector's end
            inner += _SECTOR - inner % _SECTOR
            continue
        is_folder, is_self = data[inner + 25] & 2, data[inner + _NAME_LENGTH] == 1 and data[inner + _RECORD_HEAD] < 2
        if is_folder and not is_self:
            yield from _records(data, inner)
        else:
            yield inner
        inner += data[inner]


def _forget_time_stamps(data: bytearray, record: int) -> None:
    """The same for Rock Ridge's TF entry, when the record has one: a head of five bytes, then dates of seven."""
    entry = record + _RECORD_HEAD + (data[record + _NAME_LENGTH] | 1)
    while entry + 4 <= record + data[record] and data[entry + 2]:
        if data[entry : entry + 2] == b"TF":
            count = (data[entry + 2] - 5) // len(_THE_DATE)
            data[entry + 5 : entry + data[entry + 2]] = _THE_DATE * count
        entry += data[entry + 2]
