from __future__ import annotations

import pytest

from db import images
from db.errors import DuplicateRowError, RowInUseError, RowNotFoundError
from db.session import Database, Tx
from tests.unit.db.db_builders import an_image


def test_an_image_keeps_its_properties(tx: Tx) -> None:
    image_id = an_image(tx, properties={"os_type": "linux", "architecture": "x86_64"})
    assert images.get(tx, image_id).properties == {"os_type": "linux", "architecture": "x86_64"}


def test_an_image_without_properties_has_an_empty_dict(tx: Tx) -> None:
    assert images.get(tx, an_image(tx)).properties == {}


def test_an_image_is_found_by_name_before_id(tx: Tx) -> None:
    first = an_image(tx)
    assert images.find(tx, first).name == "cirros"
    second = an_image(tx, name=str(first))
    assert images.find(tx, str(first)).id == second


def test_a_project_sees_its_own_and_the_public_images(tx: Tx) -> None:
    public, own = an_image(tx), an_image(tx, name="own", project_id="lab", is_public=False)
    an_image(tx, name="others", project_id="shop", is_public=False)
    assert [each.id for each in images.list_all(tx, project_id="lab")] == [public, own]
    assert [each.name for each in images.list_all(tx, is_public=False)] == ["own", "others"]
    assert len(images.list_all(tx)) == 3


def test_an_update_writes_what_is_named(tx: Tx) -> None:
    image_id = an_image(tx, status="saving")
    images.update(tx, image_id, status="active", size_bytes=2**40, sha256="ab" * 32, properties={"a": 1})
    found = images.get(tx, image_id)
    assert (found.status, found.size_bytes, found.properties) == ("active", 2**40, {"a": 1})
    assert found.location == "/images/cirros"


def test_a_deleted_image_is_read_on_request_only(tx: Tx) -> None:
    image_id = an_image(tx)
    images.delete(tx, image_id)
    assert images.get(tx, image_id, read_deleted=True).deleted
    assert images.list_all(tx) == []
    with pytest.raises(RowNotFoundError, match=f"no image {image_id}"):
        images.get(tx, image_id)


@pytest.mark.parametrize("role", ["kernel_id", "ramdisk_id"])
def test_a_kernel_goes_only_after_the_images_that_boot_with_it(tx: Tx, role: str) -> None:
    kernel = an_image(tx, name="vmlinuz")
    root = an_image(tx, name="root", **{role: kernel})
    with pytest.raises(RowInUseError, match=f"image {kernel} is in use by image root"):
        images.delete(tx, kernel)
    images.delete(tx, root)
    images.delete(tx, kernel)


def test_what_is_not_there_can_be_neither_found_changed_nor_deleted(tx: Tx) -> None:
    with pytest.raises(RowNotFoundError):
        images.find(tx, "nope")
    with pytest.raises(RowNotFoundError):
        images.update(tx, 99, status="active")
    with pytest.raises(RowNotFoundError):
        images.delete(tx, 99)


def test_a_name_is_taken_once(database: Database) -> None:
    database.run(an_image)
    with pytest.raises(DuplicateRowError):
        database.run(an_image)
