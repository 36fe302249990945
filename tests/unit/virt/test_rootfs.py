"""A container's root is unpacked from an archive by strangers: as it is, or not at all."""

from __future__ import annotations

import io
import lzma
import os
import tarfile
from pathlib import Path

import pytest

from tests.integration.processes import require_root
from virt import rootfs
from virt.errors import DiskError, ImageError
from virt.rootfs import Bounds, unpack

FIRST = 700_000
BOUNDS = Bounds(max_bytes=10 * 1024**2, max_files=50, first_id=FIRST, ids=65536)
INIT = {"name": "sbin/init", "mode": 0o755, "data": b"#!/bin/sh\n"}


@pytest.fixture(autouse=True)
def _root():
    require_root()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "rootfs"


def member(data=b"", **facts):
    made = tarfile.TarInfo(facts.pop("name"))
    made.size = len(data)
    for name, value in facts.items():
        setattr(made, name, value)
    return made, io.BytesIO(data)


def archive(tmp_path, *members, mode="w"):
    path = tmp_path / "archive"
    with tarfile.open(path, mode) as tar:
        for facts in members:
            tar.addfile(*member(**facts))
    return path


def link(name, to, kind=tarfile.SYMTYPE):
    return {"name": name, "linkname": to, "type": kind}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_what_is_in_the_archive_is_in_the_root_and_belongs_to_the_container(tmp_path, target, mode):
    files = ({"name": "./", "type": tarfile.DIRTYPE, "mode": 0o755}, INIT,
             {"name": "./etc/shadow", "data": b"x", "mode": 0o600, "gid": 42},
             link("bin", "/usr/bin"), link("etc/copy", "etc/shadow", tarfile.LNKTYPE))  # fmt: skip
    unpack(archive(tmp_path, *files, mode=mode), target, BOUNDS, name="i")
    shadow = (target / "etc/shadow").stat()
    assert (shadow.st_uid, shadow.st_gid, shadow.st_mode & 0o7777, shadow.st_nlink) == (FIRST, FIRST + 42, 0o600, 2)
    assert (str((target / "bin").readlink()), (target / "bin").lstat().st_uid) == ("/usr/bin", FIRST)
    assert {entry.stat().st_uid for entry in (target, target / "etc", target / "sbin/init")} == {FIRST}


HOSTILE = {
    "climbs": ([{"name": "../evil", "data": b"x"}], "leads out of the archive"),
    "climbs inside": ([{"name": "a/../../evil", "data": b"x"}], "leads out of the archive"),
    "is absolute": ([{"name": "/etc/evil", "data": b"x"}], "leads out of the archive"),
    "writes through a link": ([link("etc", "/etc"), {"name": "etc/evil", "data": b"x"}], "written through 'etc'"),
    "writes below a link": ([link("a", ".."), {"name": "a/b/evil", "data": b"x"}], "written through 'a'"),
    "links to the host": ([link("x", "/etc/passwd", tarfile.LNKTYPE)], "leads out of the archive"),
    "links through a link": ([link("e", "/etc"), link("x", "e/passwd", tarfile.LNKTYPE)], "is no file in it"),
    "links to a link": ([link("e", "/etc/passwd"), link("x", "e", tarfile.LNKTYPE)], "is no file in it"),
    "has a disk": ([{"name": "dev/sda", "type": tarfile.BLKTYPE, "devmajor": 8}], "'dev/sda' is a device"),
    "has memory": ([{"name": "dev/mem", "type": tarfile.CHRTYPE, "devmajor": 1}], "'dev/mem' is a device"),
    "has a pipe": ([{"name": "run/pipe", "type": tarfile.FIFOTYPE}], "is a pipe"),
    "has a strange owner": ([{"name": "x", "uid": 65536}], "belongs to 65536:0, which no container has"),
    "has too many files": ([{"name": f"f{number}"} for number in range(51)], "more than 50 files"),
    "is a directory and a file": ([{"name": "a/b"}, {"name": "a"}], "comes twice, once as a directory"),
    "has no init": ([{"name": "etc/x"}], "no /sbin/init"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_and_leaves_nothing(tmp_path, target, kind):
    members, reason = HOSTILE[kind]
    before = archive(tmp_path, *members)
    with pytest.raises(ImageError, match=f"^image i: .*{reason}"):
        unpack(before, target, BOUNDS, name="i")
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def bomb(tmp_path, *, header=b"", size):
    """A small file that becomes large when it is read."""
    path = tmp_path / "archive"
    with lzma.open(path, "w", preset=0) as file:
        file.write(header)
        for _ in range(size // 1024**2):
            file.write(bytes(1024**2))
    return path


def test_a_bomb_in_a_file_is_refused_before_it_is_written(tmp_path, target):
    huge = tarfile.TarInfo("huge")
    huge.size = 1024**3
    path = bomb(tmp_path, header=huge.tobuf(), size=20 * 1024**2)
    with pytest.raises(ImageError, match="more than 10485760 bytes"):
        unpack(path, target, BOUNDS, name="i")
    assert not target.exists()


def test_a_bomb_in_a_header_is_refused_by_the_limit_on_memory(tmp_path, target, monkeypatch):
    monkeypatch.setattr(rootfs, "_LIMITS", rootfs.Limits(address_space=256 * 1024**2, cpu_s=60))
    header = tarfile.TarInfo("header")
    header.size, header.type = 200 * 1024**2, tarfile.XHDTYPE
    path = bomb(tmp_path, header=header.tobuf(), size=200 * 1024**2)
    with pytest.raises(ImageError, match=r"archive: (MemoryError|.*allocate)"):
        unpack(path, target, BOUNDS, name="i")
    assert not target.exists()


@pytest.mark.parametrize("data", [b"", b"no archive", b"\x1f\x8b\x08\x00broken", b"\xfd7zXZ\x00broken"])
def test_what_is_no_archive_is_refused(tmp_path, target, data):
    path = tmp_path / "archive"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"^image i: (cannot be read as a tar archive|it has no)"):
        unpack(path, target, BOUNDS, name="i")
    assert not target.exists()


def test_a_truncated_archive_is_refused(tmp_path, target):
    path = archive(tmp_path, INIT, {"name": "big", "data": bytes(100_000)}, mode="w:gz")
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(ImageError, match="cannot be read as a tar archive"):
        unpack(path, target, BOUNDS, name="i")
    assert not target.exists()


def test_a_cancelled_unpacking_leaves_nothing(tmp_path, target):
    def cancel():
        raise DiskError("cancelled")

    with pytest.raises(DiskError, match="cancelled"):
        unpack(archive(tmp_path, INIT), target, BOUNDS, name="i", guard=cancel, execute=_slow)
    assert not target.exists()


def _slow(_words, *, guard, **_more):
    guard()


def test_a_root_that_is_deeper_than_any_path_is_removed(tmp_path):
    here = Path.cwd()
    root = tmp_path / "rootfs"
    root.mkdir()
    os.chdir(root)
    for _ in range(1500):
        Path("deeper").mkdir()
        os.chdir("deeper")
    os.chdir(here)
    rootfs.remove(root)
    rootfs.remove(root)
    assert not root.exists()
