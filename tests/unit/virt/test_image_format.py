"""Hostile images are refused by name and reason before anything else looks at them."""

from __future__ import annotations

import os
import struct
import subprocess

import pytest

from virt.errors import ImageError
from virt.image_format import inspect, refuse_cut_short, refuse_if_larger

MIB = 1024**2


def qemu_img(*words):
    subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True)


def a_qcow2(path, size="8M", *options):
    qemu_img("create", "-f", "qcow2", *options, path, size)
    return path


def patch(path, offset, content):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)
    return path


def with_backing_file(path):
    (path.parent / "secret").write_bytes(bytes(MIB))
    return a_qcow2(path, "8M", "-F", "raw", "-b", path.parent / "secret")


def with_data_file(path):
    return a_qcow2(path, "8M", "-o", f"data_file={path.parent / 'data'}")


def with_unknown_feature(path):
    return patch(a_qcow2(path), 72, struct.pack(">Q", 1 << 40))


def of_version_1(path):
    return patch(a_qcow2(path), 4, struct.pack(">I", 1))


def encrypted(path):
    return patch(a_qcow2(path), 32, struct.pack(">I", 1))


def marked_corrupt(path):
    return patch(a_qcow2(path), 72, struct.pack(">Q", 1 << 1))


def with_snapshot(path):
    a_qcow2(path)
    qemu_img("snapshot", "-c", "before", path)
    return path


def with_huge_table(path):
    return patch(a_qcow2(path), 36, struct.pack(">I", 1 << 31))


def with_small_table(path):
    return patch(a_qcow2(path, "4G"), 36, struct.pack(">I", 1))


def with_vast_reference_table(path):
    return patch(a_qcow2(path), 56, struct.pack(">I", 1 << 31))


def with_odd_clusters(path):
    return patch(a_qcow2(path), 20, struct.pack(">I", 2**32 - 1))


def without_tables(path):
    a_qcow2(path).write_bytes(path.read_bytes()[:1024])
    return path


def luks(path):
    path.write_bytes(b"LUKS\xba\xbe\0\1".ljust(MIB, b"\0"))
    return path


def vdi(path):
    qemu_img("create", "-f", "vdi", path, "8M")
    return path


def vhdx(path):
    qemu_img("create", "-f", "vhdx", path, "8M")
    return path


def cut_short(path):
    path.write_bytes(b"QFI\xfb\0\0\0\3")
    return path


def vmdk(path):
    qemu_img("create", "-f", "vmdk", path, "8M")
    return path


def vmdk_naming_a_file(path):
    text = '# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 16 FLAT "/etc/shadow" 0\n'
    path.write_text(text.ljust(2048, "\0"))
    return path


def qed(path):
    path.write_bytes(b"QED\0".ljust(MIB, b"\0"))
    return path


def raw(path):
    path.write_bytes(b"content".ljust(MIB, b"\0"))
    return path


CORPUS = [
    (with_backing_file, "qcow2", "backing file"),
    (with_data_file, "qcow2", "data_file"),
    (with_unknown_feature, "qcow2", "Unknown QCOW2 features"),
    (of_version_1, "qcow2", "Unsupported qcow2 version"),
    (encrypted, "qcow2", "encrypted"),
    (cut_short, "qcow2", "declared qcow2"),
    (marked_corrupt, "qcow2", "marked corrupt"),
    (with_snapshot, "qcow2", "internal snapshots"),
    (with_huge_table, "qcow2", "a table of 2147483648 entries"),
    (with_small_table, "qcow2", "a table of 1 entries, where 8 are needed"),
    (with_vast_reference_table, "qcow2", "a reference table of 2147483648 clusters"),
    (with_odd_clusters, "qcow2", "clusters of"),
    (without_tables, "qcow2", "cut short"),
    (luks, "raw", "content is luks"),
    (vdi, "raw", "content is vdi"),
    (vhdx, "raw", "content is vhdx"),
    (vmdk, "vmdk", "vmdk is not one of"),
    (vmdk, "qcow2", "content is vmdk"),
    (vmdk, "raw", "content is vmdk"),
    (vmdk_naming_a_file, "raw", "content is vmdk"),
    (qed, "qed", "qed is not one of"),
    (qed, "raw", "content is qed"),
    (raw, "qcow2", "content is raw"),
    (a_qcow2, "raw", "content is qcow2"),
    (with_backing_file, "raw", "content is qcow2"),
]


@pytest.mark.parametrize(("make", "declared", "reason"), CORPUS, ids=[f"{m.__name__}-{d}" for m, d, _ in CORPUS])
def test_a_hostile_image_is_refused_with_its_name_and_the_reason(tmp_path, make, declared, reason):
    with pytest.raises(ImageError, match=f"image evil: .*{reason}"):
        inspect(make(tmp_path / "image"), declared, "evil")


def test_a_qcow2_tells_its_virtual_size(tmp_path):
    assert inspect(a_qcow2(tmp_path / "image", "3G"), "qcow2", "good") == 3 * 1024**3


def test_a_qcow2_without_version_3_is_fine(tmp_path):
    assert inspect(a_qcow2(tmp_path / "image", "8M", "-o", "compat=0.10"), "qcow2", "old") == 8 * MIB


def test_a_raw_disk_may_have_a_boot_sector(tmp_path):
    assert inspect(patch(raw(tmp_path / "image"), 510, b"\x55\xaa"), "raw", "bootable") == MIB


def test_a_raw_disk_may_be_small(tmp_path):
    (tmp_path / "image").write_bytes(b"x")
    assert inspect(tmp_path / "image", "raw", "tiny") == 1


@pytest.mark.parametrize("declared", ["aki", "ari"])
def test_a_kernel_is_just_bytes(tmp_path, declared):
    assert inspect(a_qcow2(tmp_path / "image"), declared, "kernel") > 0


def test_a_tiny_file_with_a_vast_virtual_size_is_refused(tmp_path):
    image = a_qcow2(tmp_path / "image", "10T")
    assert image.stat().st_size < MIB
    with pytest.raises(ImageError, match="image evil: its virtual size, 10240 GiB, exceeds root_gb=20"):
        refuse_if_larger(inspect(image, "qcow2", "evil"), 20, "evil", largest_gb=100)


def test_a_flavor_without_a_root_size_takes_any_that_may_be_fetched():
    refuse_if_larger(100 * 1024**3, 0, "large", largest_gb=100)
    with pytest.raises(ImageError, match="image evil: its virtual size, 10240 GiB, exceeds max_image_gb=100"):
        refuse_if_larger(10 * 1024**4, 0, "evil", largest_gb=100)


def with_content(path, *options):
    """A qcow2 of 4 MiB that have something in them."""
    (path.parent / "content").write_text(os.urandom(2 * MIB).hex())
    qemu_img("convert", "-f", "raw", "-O", "qcow2", *options, path.parent / "content", path)
    return path


@pytest.mark.parametrize("options", [[], ["-c"], ["-o", "cluster_size=4k"], ["-o", "compat=0.10"]])
def test_a_qcow2_whose_end_is_missing_is_refused(tmp_path, options):
    image = with_content(tmp_path / "image", *options)
    refuse_cut_short(image, "qcow2", "good")
    inspect(image, "qcow2", "good")
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageError, match="image torn: it is cut short"):
        refuse_cut_short(image, "qcow2", "torn")


def test_looking_at_every_table_can_be_ended(tmp_path):
    def guard():
        raise TimeoutError

    with pytest.raises(TimeoutError):
        refuse_cut_short(with_content(tmp_path / "image"), "qcow2", "good", guard)


@pytest.mark.parametrize("start", [b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\x00", bytes(257) + b"ustar\x0000"])
def test_an_archive_is_known_by_its_start(tmp_path, start):
    (tmp_path / "image").write_bytes(start + bytes(1000))
    assert inspect(tmp_path / "image", "tar", "box") == len(start) + 1000


@pytest.mark.parametrize("make", [a_qcow2, vmdk])
def test_a_disk_is_no_archive_and_an_archive_no_disk(tmp_path, make):
    with pytest.raises(ImageError, match="image box: its content is no tar archive"):
        inspect(make(tmp_path / "image"), "tar", "box")
    (tmp_path / "archive").write_bytes(b"\x1f\x8b\x08" + bytes(1000))
    with pytest.raises(ImageError, match="image box: "):
        inspect(tmp_path / "archive", "qcow2", "box")
