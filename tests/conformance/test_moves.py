"""Rescue, resize, live migration: guests that boot otherwise or elsewhere."""

from __future__ import annotations

import dataclasses

import pytest

from tests.conformance.harness import needs, needs_helper
from virt.driver import LiveMigratable, Rescuable, Resizable, SharesStorage, require
from virt.errors import DiskError, GuestNotFoundError, HypervisorError, ImageError
from virt.power_state import Power


class CancelledByTestError(Exception):
    """What a progress callback raises to cancel."""


def cancel(step):
    raise CancelledByTestError


def power_or_absent(driver, spec):
    return {fact.name: fact.power for fact in driver.list_guests()}.get(spec.name)


def runs(driver, spec):
    power = power_or_absent(driver, spec)
    return power is not None and power.is_on


@pytest.fixture
def second(world):
    """The other host's driver, which can take guests."""
    needs_helper(world, "second")
    return world.second()


@pytest.fixture
def bigger(guest):
    return dataclasses.replace(guest, memory_mb=guest.memory_mb * 2, vcpus=guest.vcpus + 1, root_gb=guest.root_gb + 1)


@pytest.fixture
def moved(driver, world, second, guest, bigger):
    """A guest that was resized to the other host, not confirmed yet."""
    info = needs(driver, Resizable).migrate_disk_and_power_off(guest, world.other_host)
    require(second, Resizable).finish_resize(bigger, info)
    yield bigger
    second.destroy(bigger)
    driver.confirm_resize(guest)


@pytest.fixture
def migrating(driver, second, guest):
    """A guest whose destination is ready."""
    needs(driver, LiveMigratable)
    require(second, LiveMigratable).pre_live_migration(guest)
    yield guest
    second.destroy(guest)


def test_a_rescued_guest_runs(driver, world, guest):
    needs(driver, Rescuable).rescue(guest, world.make_guest(name=guest.name, uuid=guest.uuid))
    assert runs(driver, guest)


def test_a_guest_that_is_off_can_be_rescued(driver, world, guest):
    driver.power_off(guest)
    needs(driver, Rescuable).rescue(guest, world.make_guest(name=guest.name, uuid=guest.uuid))
    assert runs(driver, guest)


def test_a_rescued_guest_is_listed_once(driver, world, guest):
    needs(driver, Rescuable).rescue(guest, world.make_guest(name=guest.name, uuid=guest.uuid))
    assert [fact.uuid for fact in driver.list_guests() if fact.name == guest.name] == [guest.uuid]


def test_an_unrescued_guest_runs_and_has_its_data(driver, world, guest):
    needs_helper(world, "contents")
    before = world.contents(guest.name)
    needs(driver, Rescuable).rescue(guest, world.make_guest(name=guest.name, uuid=guest.uuid))
    driver.unrescue(guest)
    assert runs(driver, guest)
    assert world.contents(guest.name) == before


def test_unrescuing_twice_succeeds(driver, world, guest):
    needs(driver, Rescuable).rescue(guest, world.make_guest(name=guest.name, uuid=guest.uuid))
    driver.unrescue(guest)
    driver.unrescue(guest)
    assert runs(driver, guest)


def test_a_rescue_without_an_image_leaves_the_guest_as_it_was(driver, world, guest):
    with pytest.raises(ImageError):
        needs(driver, Rescuable).rescue(guest, world.broken_guest(name=guest.name, uuid=guest.uuid))
    assert runs(driver, guest)


def test_an_absent_guest_cannot_be_rescued(driver, make):
    with pytest.raises(GuestNotFoundError):
        needs(driver, Rescuable).rescue(make(), make())


def test_a_rescued_guest_can_be_destroyed(driver, world, guest):
    needs(driver, Rescuable).rescue(guest, world.make_guest(name=guest.name, uuid=guest.uuid))
    driver.destroy(guest)
    assert world.leftovers(guest) == []


def test_a_resized_guest_runs_on_the_other_host_only(driver, second, moved):
    assert runs(second, moved)
    assert not runs(driver, moved)


def test_a_resized_guest_has_the_new_size(second, moved):
    info = second.get_info(moved.name)
    assert (info.max_mem_kb, info.num_cpu) == (moved.memory_mb * 1024, moved.vcpus)


def test_a_resized_guest_has_its_data(driver, world, second, guest, bigger):
    needs_helper(world, "contents")
    before = world.contents(guest.name)
    info = needs(driver, Resizable).migrate_disk_and_power_off(guest, world.other_host)
    second.finish_resize(bigger, info)
    assert world.contents(guest.name) == before
    second.destroy(bigger)
    driver.confirm_resize(guest)


def test_a_confirmed_resize_leaves_nothing_on_the_source(driver, world, second, moved, guest):
    driver.confirm_resize(guest)
    assert world.leftovers(guest) == []
    assert runs(second, moved)


def test_confirming_twice_succeeds(driver, guest, moved):
    driver.confirm_resize(guest)
    driver.confirm_resize(guest)


def test_a_reverted_resize_runs_on_the_source_at_the_old_size(driver, second, moved, guest):
    second.destroy(moved)
    driver.revert_resize(guest)
    assert runs(driver, guest)
    assert driver.get_info(guest.name).max_mem_kb == guest.memory_mb * 1024


def test_a_reverted_resize_has_its_data(driver, world, second, guest, bigger):
    needs_helper(world, "contents")
    before = world.contents(guest.name)
    info = needs(driver, Resizable).migrate_disk_and_power_off(guest, world.other_host)
    second.finish_resize(bigger, info)
    second.destroy(bigger)
    driver.revert_resize(guest)
    assert world.contents(guest.name) == before


def test_reverting_twice_succeeds(driver, second, moved, guest):
    second.destroy(moved)
    driver.revert_resize(guest)
    driver.revert_resize(guest)
    assert runs(driver, guest)


def test_powering_off_for_a_resize_twice_gives_the_same(driver, world, second, guest):
    resizable = needs(driver, Resizable)
    first = resizable.migrate_disk_and_power_off(guest, world.other_host)
    assert resizable.migrate_disk_and_power_off(guest, world.other_host) == first
    driver.revert_resize(guest)


def test_finishing_a_resize_twice_succeeds(driver, world, second, guest, bigger):
    info = needs(driver, Resizable).migrate_disk_and_power_off(guest, world.other_host)
    second.finish_resize(bigger, info)
    second.finish_resize(bigger, info)
    assert runs(second, bigger)
    second.destroy(bigger)
    driver.confirm_resize(guest)


def test_a_disk_info_that_says_nothing_is_refused(driver, make):
    with pytest.raises(DiskError):
        needs(driver, Resizable).finish_resize(make(), "{}")


def test_an_absent_guest_cannot_be_resized(driver, world, make):
    with pytest.raises(GuestNotFoundError):
        needs(driver, Resizable).migrate_disk_and_power_off(make(), world.other_host)


def test_a_guest_is_resized_on_its_own_host(driver, world, guest, bigger):
    info = needs(driver, Resizable).migrate_disk_and_power_off(guest, world.this_host)
    driver.finish_resize(bigger, info)
    driver.confirm_resize(guest)
    assert driver.get_info(guest.name).max_mem_kb == bigger.memory_mb * 1024
    assert runs(driver, bigger)


def test_a_resize_on_its_own_host_is_reverted_after_destroy(driver, world, guest, bigger):
    info = needs(driver, Resizable).migrate_disk_and_power_off(guest, world.this_host)
    driver.finish_resize(bigger, info)
    driver.destroy(bigger)
    driver.revert_resize(guest)
    assert driver.get_info(guest.name).max_mem_kb == guest.memory_mb * 1024


def test_a_live_migrated_guest_runs_there_and_not_here(driver, world, second, migrating):
    driver.live_migration(migrating, world.other_host)
    assert runs(second, migrating)
    assert power_or_absent(driver, migrating) is None


def test_a_live_migrated_guest_leaves_nothing_after_cleanup(driver, world, second, migrating):
    driver.live_migration(migrating, world.other_host)
    driver.cleanup_live_migration(migrating)
    assert world.leftovers(migrating) == []
    assert runs(second, migrating)


def test_cleaning_up_a_guest_that_runs_here_does_not_touch_it(driver, guest):
    needs(driver, LiveMigratable).cleanup_live_migration(guest)
    assert runs(driver, guest)


def test_cleaning_up_where_nothing_is_succeeds(driver, make):
    needs(driver, LiveMigratable).cleanup_live_migration(make())


def test_a_guest_cannot_be_migrated_to_a_host_that_is_not_there(driver, guest):
    with pytest.raises(HypervisorError):
        needs(driver, LiveMigratable).live_migration(guest, "nowhere.invalid")
    assert runs(driver, guest)


def test_a_cancelled_live_migration_leaves_the_guest_running_here(driver, world, second, migrating):
    with pytest.raises(CancelledByTestError):
        driver.live_migration(migrating, world.other_host, cancel)
    assert runs(driver, migrating)
    assert not runs(second, migrating)


def test_getting_ready_for_a_guest_twice_succeeds(second, migrating):
    second.pre_live_migration(migrating)


def test_getting_ready_is_not_having_the_guest(second, migrating):
    assert power_or_absent(second, migrating) is None


def test_an_absent_guest_cannot_be_migrated(driver, world, make):
    with pytest.raises(GuestNotFoundError):
        needs(driver, LiveMigratable).live_migration(make(), world.other_host)


def test_a_host_takes_guests_of_its_own_cpu(driver):
    needs(driver, LiveMigratable).compare_cpu(driver.host_resources().cpu_info)


def test_a_host_refuses_guests_of_another_cpu(driver):
    foreign = '{"arch": "s390x", "model": "z", "vendor": "IBM", "topology": {}, "features": []}'
    with pytest.raises(HypervisorError):
        needs(driver, LiveMigratable).compare_cpu(foreign)


def test_hosts_that_share_storage_see_the_test_file(driver, world, second):
    needs_helper(world, "share_storage")
    world.share_storage()
    filename = needs(driver, SharesStorage).create_shared_storage_test_file()
    assert second.check_shared_storage_test_file(filename)
    driver.cleanup_shared_storage_test_file(filename)
    assert not second.check_shared_storage_test_file(filename)


def test_removing_a_test_file_twice_succeeds(driver):
    filename = needs(driver, SharesStorage).create_shared_storage_test_file()
    driver.cleanup_shared_storage_test_file(filename)
    driver.cleanup_shared_storage_test_file(filename)


def test_a_migrated_guest_can_be_paused_there(driver, world, second, migrating):
    driver.live_migration(migrating, world.other_host)
    second.pause(migrating)
    assert power_or_absent(second, migrating) is Power.PAUSED
