"""Images of running guests, and chains that grow too long."""

from __future__ import annotations

import dataclasses

import pytest

from tests.builders import an_image
from virt.errors import DiskError

CHAIN = 4


@pytest.fixture
def snapshot(world, guest):
    """Make a snapshot; its result."""
    return lambda: world.driver.snapshot(guest, str(world.folder / "snapshot.vhd"))


def test_a_guest_made_of_a_snapshot_has_its_data(world, driver, guest, snapshot):
    (vm,) = world.pool.find("VM", name_label=guest.name)
    root = next(r["VDI"] for r in map(world.disk, world.pool.record("VM", vm)["VBDs"]) if r["userdevice"] == "0")
    world.pool.write_vdi(root, 700_000, b"written by the guest")
    result = snapshot()
    twin = world.make_guest(image=an_image(location=result.path, disk_format="vhd", sha256=result.sha256))
    driver.spawn(twin)
    assert world.contents(twin.name) == world.contents(guest.name)
    assert b"written by the guest".hex() in world.contents(twin.name)


def test_a_snapshot_leaves_no_disk_and_no_vm_behind(ours, snapshot):
    before = ours()
    snapshot()
    assert ours() == before


def test_what_a_killed_daemon_left_of_a_snapshot_is_removed_by_the_next(world, ours, snapshot):
    before = ours()
    world.pool.faults.fail("VDI.destroy", "INTERNAL_ERROR", "as if killed")
    snapshot()
    assert ours() != before
    snapshot()
    assert ours() == before


def test_a_storage_that_never_coalesces_makes_a_snapshot_fail_cleanly(world, ours, snapshot):
    world.pool.settings.coalesce = False
    world.driver._parts.snapshotter._most = CHAIN
    for _ in range(CHAIN):
        snapshot()
    with pytest.raises(DiskError, match="a chain of 5 images, more than 4, and the storage did not coalesce it"):
        snapshot()
    assert not [label for label in ours()["VDI"] if "snapshot" in label]
    assert len(ours()["VM"]) == 1


def test_a_chain_that_is_coalesced_in_time_is_waited_for(world, snapshot):
    world.pool.settings.coalesce = False
    world.driver._parts.snapshotter._most = 3
    snapshot()
    snapshot()
    world.pool.settings.coalesce = True
    assert snapshot().size_bytes > 0


def test_the_memory_of_a_guest_is_not_asked_for(world, snapshot):
    snapshot()
    assert not world.pool.calls_of("VM.snapshot")


def test_a_guest_whose_root_disk_is_gone_is_said_so(world, driver, guest):
    (vdi,) = world.pool.find("VDI", name_label=f"{guest.name} root")
    driver._session.call("VDI.set_name_label", vdi, "stolen")
    with pytest.raises(DiskError, match="its root disk is not in the pool"):
        driver.snapshot(dataclasses.replace(guest), str(world.folder / "none"))
