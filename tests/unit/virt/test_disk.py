"""Disk files, by the real qemu-img."""

from __future__ import annotations

import ast
import json
import subprocess
from pathlib import Path

import pytest

from tests.unit.virt.test_image_format import with_backing_file, with_data_file
from virt.disk import Disks, remove_tree
from virt.errors import DiskError, DiskFullError, ProcessError

MIB = 1024**2
SOURCES = [path for name in ("virt", "compute", "db") for path in (Path(__file__).parents[3] / name).rglob("*.py")]


def info(path):
    out = subprocess.run(["qemu-img", "info", "--output=json", path], check=True, capture_output=True).stdout
    return json.loads(out)


@pytest.fixture
def base(tmp_path):
    (tmp_path / "a,base").write_bytes(b"content".ljust(MIB, b"\0"))
    return tmp_path / "a,base"


def test_an_overlay_knows_its_base_and_the_bases_format(tmp_path, base):
    Disks().create_overlay(tmp_path / "disk", base, "raw", 64 * MIB)
    facts = info(tmp_path / "disk")
    assert (facts["format"], facts["virtual-size"]) == ("qcow2", 64 * MIB)
    assert (facts["backing-filename"], facts["backing-filename-format"]) == (str(base), "raw")


def test_a_copy_needs_nobody(tmp_path, base):
    Disks().copy(base, "raw", tmp_path / "disk", 64 * MIB)
    facts = info(tmp_path / "disk")
    assert (facts["virtual-size"], facts.get("backing-filename")) == (64 * MIB, None)


def test_a_disk_grows_and_never_shrinks(tmp_path, base):
    Disks().create_overlay(tmp_path / "disk", base, "raw", 64 * MIB)
    for size, expected in ((128, 128), (32, 128)):
        Disks().grow(tmp_path / "disk", "qcow2", size * MIB)
        assert Disks().virtual_size(tmp_path / "disk", "qcow2") == expected * MIB


def test_an_empty_disk_is_sparse_and_its_owners_alone(tmp_path):
    Disks().create_empty(tmp_path / "disk", 10 * 1024 * MIB)
    facts = (tmp_path / "disk").stat()
    assert (facts.st_size, facts.st_blocks, facts.st_mode & 0o777) == (10 * 1024 * MIB, 0, 0o600)


def test_a_swap_disk_has_its_signature(tmp_path):
    Disks().create_swap(tmp_path / "disk", 16 * MIB)
    assert (tmp_path / "disk").read_bytes()[4086:4096] == b"SWAPSPACE2"


@pytest.mark.parametrize("make", ["create_overlay", "copy"])
def test_a_root_disk_is_its_owners_alone(tmp_path, base, make):
    disk = tmp_path / "disk"
    if make == "create_overlay":
        Disks().create_overlay(disk, base, "raw", MIB)
    else:
        Disks().copy(base, "raw", disk, MIB)
    Disks().flatten(disk, base, tmp_path / "flat", lambda: None)
    assert [path.stat().st_mode & 0o777 for path in (disk, tmp_path / "flat")] == [0o600, 0o600]


@pytest.mark.parametrize("make", [with_backing_file, with_data_file])
def test_a_disk_whose_header_was_changed_is_not_followed(tmp_path, base, make):
    with pytest.raises(DiskError, match=r"refers to .*, and may refer to .*a,base alone"):
        Disks().flatten(make(tmp_path / "disk"), base, tmp_path / "flat", lambda: None)
    assert not (tmp_path / "flat").exists()


def test_a_large_disk_is_given_more_time_to_copy(tmp_path, base):
    given = {}

    def execute(cmd, *, timeout_s, limits, **_options):
        given[cmd[1]] = (timeout_s, limits.cpu_s)
        return json.dumps({"virtual-size": 1024**4})

    Disks().create_overlay(tmp_path / "disk", base, "raw", MIB)
    Disks(execute).flatten(tmp_path / "disk", base, tmp_path / "copy", lambda: None)
    slow_s = 1024**4 // (50 * MIB)
    assert given == {"info": (60, 300), "convert": (3600 + slow_s, 300 + slow_s)}


def test_an_existing_file_is_not_overwritten(tmp_path, base):
    with pytest.raises(DiskError):
        Disks().create_empty(base, MIB)


def test_a_full_host_is_told_apart():
    def full(cmd, **_options):
        raise ProcessError(cmd, 1, "qemu-img: error while writing: No space left on device")

    with pytest.raises(DiskFullError):
        Disks(full).virtual_size(Path("/disk"), "raw")


def test_a_failure_carries_the_programs_words(tmp_path):
    with pytest.raises(DiskError, match="Could not open"):
        Disks().virtual_size(tmp_path / "nowhere", "raw")


def test_every_qemu_img_names_a_format_and_has_limits_and_a_deadline(tmp_path, base):
    calls = []

    def execute(cmd, *, timeout_s, limits, umask):
        calls.append(cmd)
        assert "-f" in cmd
        assert timeout_s > 0
        assert limits.address_space
        assert limits.cpu_s
        assert umask == 0o077
        return '{"virtual-size": 0}'

    disks = Disks(execute)
    disks.create_overlay(tmp_path / "disk", base, "raw", MIB)
    disks.copy(base, "raw", tmp_path / "copy", MIB)
    assert [cmd[1] for cmd in calls] == ["create", "convert", "info", "resize"]


def test_one_module_alone_knows_qemu_img():
    def names_it(path):
        constants = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
        return any(node.value == "qemu-img" for node in constants)

    assert {path.name for path in SOURCES if names_it(path)} == {"disk.py", "conf.py"}


def test_removing_a_tree_twice_succeeds(tmp_path):
    (tmp_path / "guest").mkdir()
    (tmp_path / "guest/disk").touch()
    remove_tree(tmp_path / "guest")
    remove_tree(tmp_path / "guest")
    assert not (tmp_path / "guest").exists()
