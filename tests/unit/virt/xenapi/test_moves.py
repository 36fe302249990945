"""Guests that go to another host whose storage is not ours."""

from __future__ import annotations

import dataclasses

import pytest

from virt.errors import DiskError, DriverTimeoutError, GuestNotFoundError, HypervisorError
from virt.power_state import Power
from virt.xenapi import session
from virt.xenapi.session import NULL
from virt.xenapi.wiring import Plug


@pytest.fixture
def moving(apart):
    """A running guest with two disks on the first host's own storage."""
    spec = apart.make_guest(ephemeral_gb=1)
    apart.driver.spawn(spec)
    return spec


def storages(world, spec):
    """Where a guest's disks are."""
    (vm,) = world.pool.find("VM", name_label=spec.name)
    vdis = [world.pool.record("VBD", vbd)["VDI"] for vbd in world.pool.record("VM", vm)["VBDs"]]
    return {world.pool.record("SR", world.pool.record("VDI", vdi)["SR"])["name_label"] for vdi in vdis}


def test_a_live_migration_takes_the_disks_along(apart, moving):
    before = apart.contents(moving.name)
    apart.second().pre_live_migration(moving)
    apart.driver.live_migration(moving, "other")
    assert apart.contents(moving.name) == before
    assert storages(apart, moving) == {"local-beta"}
    assert len(apart.pool.calls_of("VM.migrate_send")) == 1


def test_a_migrated_guest_is_removed_by_its_new_host_with_all_its_disks(apart, moving):
    apart.driver.live_migration(moving, "other")
    apart.second().destroy(moving)
    assert apart.pool.find("VDI", SR=apart.pool.local_sr("beta")) == []
    assert apart.pool.find("VDI", SR=apart.pool.local_sr("alpha")) == []


def test_a_migrated_guest_that_is_off_belongs_to_its_new_host(world, guest):
    world.driver.live_migration(guest, "other")
    world.second().power_off(guest)
    assert world.second().get_info(guest.name).power is Power.SHUTOFF
    with pytest.raises(GuestNotFoundError):
        world.driver.get_info(guest.name)


def test_hosts_that_share_a_storage_move_no_disks(world, guest):
    world.driver.live_migration(guest, "other")
    assert world.pool.calls_of("VM.pool_migrate")
    assert not world.pool.calls_of("VM.migrate_send")


def test_a_migration_whose_answer_was_lost_is_looked_for(world, guest):
    world.pool.faults.lose_reply("VM.pool_migrate")
    world.driver.live_migration(guest, "other")
    assert world.second().get_info(guest.name).power is Power.RUNNING


def test_a_migration_that_never_ends_is_cancelled_and_said_so(world, guest):
    world.pool.faults.never_finish("VM.pool_migrate")
    world.driver._parts.migrator._move_s = 0.2
    with pytest.raises(DriverTimeoutError, match=r"VM.pool_migrate: did not end within 0.2 s"):
        world.driver.live_migration(guest, "other")
    assert world.driver.get_info(guest.name).power is Power.RUNNING


def test_a_migration_that_is_called_off_after_the_guest_has_moved_is_one(world, guest):
    world.pool.faults.fail_after("VM.pool_migrate", "TASK_CANCELLED", "OpaqueRef:1")
    world.driver.live_migration(guest, "other")
    assert world.second().get_info(guest.name).power is Power.RUNNING


@pytest.mark.parametrize("call", ["VDI.set_other_config", "VM.set_other_config"])
def test_a_guest_that_has_moved_has_moved_whatever_its_stamps_say(world, guest, call):
    world.pool.faults.fail(call, "INTERNAL_ERROR", "injected")
    world.driver.live_migration(guest, "other")
    world.driver.cleanup_live_migration(guest)
    world.second().reboot(guest)
    assert world.second().get_info(guest.name).power is Power.RUNNING


def test_a_pool_that_is_lost_during_a_migration_does_not_leave_the_guest_here(world, guest, monkeypatch):
    monkeypatch.setattr(session, "_AWAY_S", 0.1)
    hold = world.pool.faults.hold("VM.pool_migrate", done=True)
    world.pool.faults.drop_request("task.get_record", times=None)
    world.pool.faults.drop_request("VM.get_record", nth=2, times=None)
    with pytest.raises(DriverTimeoutError, match="where it is, nobody knows"):
        world.driver.live_migration(guest, "other")
    hold.release()


def test_a_migration_that_ends_the_guest_is_not_told_as_one_that_left_it_here(world, guest):
    world.pool.faults.fail_after("VM.hard_shutdown", "INTERNAL_ERROR", "it crashed")
    run = world.driver._session.run
    world.driver._session.run = lambda _method, vm, *_args, **facts: run("VM.hard_shutdown", vm, timeout_s=5)
    with pytest.raises(DriverTimeoutError, match="it is SHUTOFF now"):
        world.driver.live_migration(guest, "other")


def test_an_empty_drive_that_somebody_added_does_not_hold_up_a_migration(world, guest):
    (vm,) = world.pool.find("VM", name_label=guest.name)
    drive = Plug(vdi=NULL, device="3").record(vm) | {"type": "CD", "mode": "RO", "empty": True}
    world.driver._session.call("VBD.create", drive)
    world.driver.live_migration(guest, "other")
    assert world.second().get_info(guest.name).power is Power.RUNNING


def test_a_migration_without_room_for_the_disks_leaves_the_guest_here(apart, moving):
    apart.pool.fill(apart.pool.local_sr("beta"))
    with pytest.raises((HypervisorError, DiskError)):
        apart.driver.live_migration(moving, "other")
    assert apart.driver.get_info(moving.name).power is Power.RUNNING
    assert storages(apart, moving) == {"local-alpha"}


def test_stamps_follow_a_migration_that_nobody_saw_the_end_of(world, guest):
    (vm,) = world.pool.find("VM", name_label=guest.name)
    world.driver._session.run("VM.pool_migrate", vm, world.pool.hosts[1].ref, {}, timeout_s=5)
    world.driver.cleanup_live_migration(guest)
    assert world.pool.record("VM", vm)["other_config"]["nova-host"] == world.pool.hosts[1].uuid
    world.second().power_off(guest)
    assert world.second().get_info(guest.name).power is Power.SHUTOFF


def test_a_resize_copies_the_disks_to_the_other_storage(apart, moving):
    before = apart.contents(moving.name)
    info = apart.driver.migrate_disk_and_power_off(moving, "other")
    apart.second().finish_resize(dataclasses.replace(moving, root_gb=2), info)
    assert apart.contents(moving.name) == before
    assert storages(apart, moving) == {"local-beta"}
    assert len(apart.pool.calls_of("VDI.copy")) == 2


@pytest.mark.parametrize("fault", ["lose_reply", "fail"])
def test_a_copy_to_the_other_storage_that_nobody_saw_the_end_of_leaves_nothing(apart, moving, fault):
    info = apart.driver.migrate_disk_and_power_off(moving, "other")
    getattr(apart.pool.faults, fault)("VDI.copy", *(["VDI_IO_ERROR", "Device I/O errors"] if fault == "fail" else []))
    with pytest.raises(HypervisorError):
        apart.second().finish_resize(moving, info)
    apart.driver.revert_resize(moving)
    apart.second().destroy(moving)
    assert storages(apart, moving) == {"local-alpha"}
    assert apart.pool.find("VDI", SR=apart.pool.local_sr("beta")) == []


def test_a_resize_within_a_storage_clones(world, guest):
    info = world.driver.migrate_disk_and_power_off(guest, "other")
    world.second().finish_resize(guest, info)
    assert world.pool.calls_of("VDI.clone")
    assert not world.pool.calls_of("VDI.copy")


def test_a_resize_to_a_host_that_nobody_serves_leaves_the_guest_running(world, guest):
    with pytest.raises(DiskError, match="no host of the pool is called gamma"):
        world.driver.migrate_disk_and_power_off(guest, "gamma")
    assert world.driver.get_info(guest.name).power is Power.RUNNING


def test_a_kept_guest_is_listed_nowhere(world, guest):
    world.driver.migrate_disk_and_power_off(guest, "other")
    assert world.driver.list_guests() == world.second().list_guests() == []


def test_a_resize_of_somebody_elses_vm_is_refused(world, guest):
    info = world.driver.migrate_disk_and_power_off(guest, "other")
    with pytest.raises(DiskError, match="is not its own"):
        world.second().finish_resize(world.make_guest(), info)


def test_nothing_to_revert_is_said_so(world):
    with pytest.raises(GuestNotFoundError):
        world.driver.revert_resize(world.make_guest())


def test_a_revert_of_what_was_never_kept_starts_the_guest(world, guest):
    world.driver.power_off(guest)
    world.driver.revert_resize(guest)
    assert world.driver.get_info(guest.name).power is Power.RUNNING


def test_a_host_without_a_feature_of_the_other_refuses_it(world):
    ours = world.driver.host_resources().cpu_info
    with pytest.raises(HypervisorError, match="lacks features of feature word 0"):
        world.driver.compare_cpu(ours.replace('"features": ["', '"features": ["f'))
