from __future__ import annotations

import pytest

from db import volumes
from db.errors import MountpointTakenError, RowNotFoundError, VolumeInUseError, VolumeStatusError
from db.session import Database, Tx
from tests.unit.db.db_builders import a_volume, an_instance, counted


def state(tx: Tx, volume_id: int) -> tuple[str, str]:
    found = volumes.get(tx, volume_id)
    return found.status, found.attach_status


def test_a_volume_is_reserved_attached_detached_and_free_again(tx: Tx) -> None:
    volume_id, instance_id = a_volume(tx), an_instance(tx)
    attachment_id = volumes.reserve_attachment(tx, volume_id, instance_id, "/dev/vdb")
    assert state(tx, volume_id) == ("attaching", "attaching")
    assert volumes.set_attached(tx, attachment_id)
    assert state(tx, volume_id) == ("in-use", "attached")
    assert volumes.set_detaching(tx, attachment_id)
    assert state(tx, volume_id) == ("detaching", "detaching")
    assert volumes.set_detached(tx, attachment_id)
    assert state(tx, volume_id) == ("available", "detached")
    assert volumes.attachment_of(tx, volume_id) is None


def test_a_reservation_takes_two_statements(database: Database) -> None:
    volume_id, instance_id = database.run(a_volume), database.run(an_instance)
    with database.transaction() as tx, counted(database) as sent:
        volumes.reserve_attachment(tx, volume_id, instance_id, "/dev/vdb")
    assert len(sent) == 2


def test_a_volume_in_use_names_its_instance(tx: Tx) -> None:
    volume_id, holder = a_volume(tx), an_instance(tx)
    volumes.reserve_attachment(tx, volume_id, holder, "/dev/vdb")
    with pytest.raises(VolumeInUseError, match=f"volume {volume_id} is in use by instance {holder}") as caught:
        volumes.reserve_attachment(tx, volume_id, an_instance(tx), "/dev/vdb")
    assert caught.value.instance_id == holder


def test_a_volume_that_an_operator_freed_by_hand_is_not_attached_twice(tx: Tx) -> None:
    volume_id = a_volume(tx)
    volumes.reserve_attachment(tx, volume_id, an_instance(tx), "/dev/vdb")
    volumes.set_status(tx, volume_id, "attaching", "available")
    with pytest.raises(VolumeInUseError, match="in use by an instance"):
        volumes.reserve_attachment(tx, volume_id, an_instance(tx), "/dev/vdb")


def test_a_device_name_is_taken_once_and_the_volume_stays_free(database: Database) -> None:
    instance_id, first, second = database.run(an_instance), database.run(a_volume), database.run(a_volume)
    attachment_id = database.run(volumes.reserve_attachment, first, instance_id, "/dev/vdb")
    with pytest.raises(MountpointTakenError, match=f"instance {instance_id} has a volume at /dev/vdb already"):
        database.run(volumes.reserve_attachment, second, instance_id, "/dev/vdb")
    assert database.query(volumes.get, second).status == "available"
    database.run(volumes.set_detached, attachment_id)
    assert database.run(volumes.reserve_attachment, second, instance_id, "/dev/vdb")


@pytest.mark.parametrize("status", ["creating", "error", "deleting"])
def test_a_volume_that_is_not_available_is_not_reserved(tx: Tx, status: str) -> None:
    volume_id = a_volume(tx, status=status)
    with pytest.raises(VolumeStatusError, match=f"volume {volume_id} is {status}"):
        volumes.reserve_attachment(tx, volume_id, an_instance(tx), "/dev/vdb")


def test_a_volume_that_is_not_there_is_not_reserved(tx: Tx) -> None:
    with pytest.raises(RowNotFoundError, match="no volume 99"):
        volumes.reserve_attachment(tx, 99, an_instance(tx), "/dev/vdb")


def test_news_of_an_old_attachment_do_not_touch_the_new_one(tx: Tx) -> None:
    volume_id, instance_id = a_volume(tx), an_instance(tx)
    old = volumes.reserve_attachment(tx, volume_id, instance_id, "/dev/vdb")
    volumes.set_detached(tx, old)
    new = volumes.reserve_attachment(tx, volume_id, an_instance(tx), "/dev/vdb")
    volumes.set_attached(tx, new)
    for news in (volumes.set_attached, volumes.set_detaching, volumes.undo_detaching, volumes.set_detached):
        assert not news(tx, old)
    assert state(tx, volume_id) == ("in-use", "attached")


def test_an_attachment_moves_in_order_only(tx: Tx) -> None:
    attachment_id = volumes.reserve_attachment(tx, a_volume(tx), an_instance(tx), "/dev/vdb")
    assert not volumes.set_detaching(tx, attachment_id)
    assert volumes.set_attached(tx, attachment_id)
    assert not volumes.set_attached(tx, attachment_id)
    assert not volumes.undo_detaching(tx, attachment_id)
    assert volumes.set_detaching(tx, attachment_id)
    assert volumes.undo_detaching(tx, attachment_id)


def test_a_volume_set_to_error_stays_so_when_its_guest_lets_go(tx: Tx) -> None:
    volume_id = a_volume(tx)
    attachment_id = volumes.reserve_attachment(tx, volume_id, an_instance(tx), "/dev/vdb")
    volumes.set_status(tx, volume_id, "attaching", "error")
    assert volumes.set_detached(tx, attachment_id)
    assert volumes.get(tx, volume_id).status == "error"


def test_the_attachments_of_many_instances_take_one_statement(database: Database) -> None:
    with database.transaction() as tx, counted(database) as sent:
        one, two = an_instance(tx), an_instance(tx)
        for instance_id, device in ((two, "/dev/vdb"), (one, "/dev/vdc"), (one, "/dev/vdb")):
            volumes.reserve_attachment(tx, a_volume(tx, provider_location="nbd://x"), instance_id, device)
        sent.clear()
        found = volumes.attachments_of(tx, [one, two])
        assert [(each.instance_id, each.mountpoint) for each in found] == [
            (one, "/dev/vdb"),
            (one, "/dev/vdc"),
            (two, "/dev/vdb"),
        ]
        assert (found[0].state, found[0].size, found[0].provider_location) == ("attaching", 1, "nbd://x")
        assert volumes.attachments_of(tx, []) == []
        assert len(sent) == 1


@pytest.mark.parametrize("status", ["available", "error", "deleting"])
def test_an_idle_volume_can_be_deleted(tx: Tx, status: str) -> None:
    volume_id = a_volume(tx, status=status)
    volumes.delete(tx, volume_id)
    with pytest.raises(RowNotFoundError):
        volumes.get(tx, volume_id)
    with pytest.raises(RowNotFoundError):
        volumes.delete(tx, volume_id)


def test_a_volume_at_work_is_not_deleted(tx: Tx) -> None:
    volume_id = a_volume(tx)
    volumes.reserve_attachment(tx, volume_id, an_instance(tx), "/dev/vdb")
    with pytest.raises(VolumeInUseError):
        volumes.delete(tx, volume_id)
    volumes.set_status(tx, volume_id, ["attaching"], "error")
    with pytest.raises(VolumeInUseError):
        volumes.delete(tx, volume_id)
    with pytest.raises(VolumeStatusError, match="is creating"):
        volumes.delete(tx, a_volume(tx, status="creating"))


def test_volumes_are_listed_by_project_and_host(tx: Tx) -> None:
    one, two = a_volume(tx, host="host1"), a_volume(tx, project_id="shop")
    assert [each.id for each in volumes.list_all(tx)] == [one, two]
    assert [each.id for each in volumes.list_all(tx, project_id="shop")] == [two]
    assert [each.id for each in volumes.list_all(tx, host="host1")] == [one]
