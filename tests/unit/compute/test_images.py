import hashlib
import os
import struct

import pytest

from compute import images
from compute.context import RequestContext, get_admin_context
from compute.errors import DuplicateError, ImageNotFoundError, InUseError, InvalidInputError
from tests.fakes.databases import a_database

ADMIN = get_admin_context()
LAB = RequestContext(user_id="anna", project_id="lab")


@pytest.fixture
def db(tmp_path):
    database = a_database(tmp_path)
    yield database
    database.dispose()


@pytest.fixture
def add(db, tmp_path):
    def do(context=ADMIN, **changes):
        values = {"name": "tiny", "location": str(tmp_path / "source"), "disk_format": "aki", **changes}
        return images.add(db, context, tmp_path / "images", **values)

    (tmp_path / "source").write_bytes(b"kernel" * 1000)
    return do


def test_a_local_file_is_copied_with_its_checksum(add, tmp_path):
    image = add(min_disk_gb=1, properties={"os_type": "linux"})
    digest = hashlib.sha256(b"kernel" * 1000).hexdigest()
    assert (image.status, image.sha256, image.size_bytes) == ("active", digest, 6000)
    assert image.location == str(tmp_path / "images" / "image-00000001")
    assert (tmp_path / "images" / "image-00000001").read_bytes() == b"kernel" * 1000
    assert [entry.name for entry in (tmp_path / "images").iterdir()] == ["image-00000001"]


def test_a_file_url_is_a_local_file(add, tmp_path):
    assert add(location=f"file://{tmp_path}/source").size_bytes == 6000


def test_a_url_is_recorded_as_it_is(add):
    image = add(location="https://images.example.org/tiny.qcow2", disk_format="qcow2", sha256="A" * 64)
    assert (image.location, image.sha256, image.status) == ("https://images.example.org/tiny.qcow2", "a" * 64, "active")


@pytest.mark.parametrize(
    "changes",
    [
        {"disk_format": "vmdk"},
        {"disk_format": "qcow2"},
        {"location": "/does/not/exist"},
        {"location": "/dev/null"},
        {"location": "/"},
        {"location": ""},
        {"location": "ftp://host/x"},
        {"location": "http://user:secret@host/x"},
        {"sha256": "0" * 64},
        {"sha256": "short"},
        {"min_disk_gb": -1},
        {"name": " "},
        {"properties": {"k": "v" * 256}},
    ],
)
def test_an_image_that_makes_no_sense_is_refused_and_leaves_nothing(add, db, tmp_path, changes):
    with pytest.raises(InvalidInputError):
        add(**changes)
    assert images.get_all(db, ADMIN) == []
    assert not list((tmp_path / "images").iterdir()) if (tmp_path / "images").exists() else True


def test_a_qcow2_with_a_backing_file_is_refused(add, tmp_path):
    header = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 104, 11, 16, 1 << 20, 0, 1, 65536, 131072, 1, 0, 0)
    rest = struct.pack(">QQQII", 0, 0, 0, 4, 104)
    (tmp_path / "source").write_bytes((header + rest + b"/etc/passwd").ljust(262144, b"\0"))
    with pytest.raises(InvalidInputError, match=r"source|backing"):
        add(disk_format="qcow2")


def test_a_pipe_is_refused_without_waiting_for_it(add, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInputError, match="not a regular file"):
        add(location=str(tmp_path / "pipe"))


def test_a_name_is_taken_once_and_free_after_a_failure(add):
    with pytest.raises(InvalidInputError):
        add(sha256="0" * 64)
    add()
    with pytest.raises(DuplicateError, match="image 'tiny' exists"):
        add()


def test_a_kernel_must_be_one(add):
    kernel = add(name="kernel")
    image = add(name="disk", disk_format="raw", kernel="kernel")
    assert image.kernel_id == kernel.id
    with pytest.raises(InvalidInputError, match="where ari is needed"):
        add(name="other", disk_format="raw", ramdisk="kernel")
    with pytest.raises(ImageNotFoundError):
        add(name="other", disk_format="raw", kernel="nothing")


def test_a_kernel_in_use_is_not_deleted(add, db, tmp_path):
    add(name="kernel")
    add(name="disk", disk_format="raw", kernel="kernel")
    with pytest.raises(InUseError):
        images.delete(db, ADMIN, tmp_path / "images", "kernel")
    assert (tmp_path / "images" / "image-00000001").exists()


def test_deleting_removes_our_copy_only(add, db, tmp_path):
    add()
    images.delete(db, ADMIN, tmp_path / "images", "tiny")
    assert not list((tmp_path / "images").iterdir())
    assert (tmp_path / "source").exists()


def test_a_project_sees_public_images_and_its_own(add, db, tmp_path):
    add(name="everyones")
    add(LAB, name="labs", public=False)
    other = RequestContext(user_id="bob", project_id="other")
    assert [one.name for one in images.get_all(db, other)] == ["everyones"]
    with pytest.raises(ImageNotFoundError):
        images.get(db, other, "labs")
    with pytest.raises(ImageNotFoundError):
        images.delete(db, other, tmp_path / "images", "everyones")
