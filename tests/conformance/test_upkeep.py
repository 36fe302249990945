"""What a driver does for its host: events, counters of all guests at once, image cache, left-over files."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest

from tests.conformance.harness import needs, needs_helper
from tests.integration.processes import wait_until
from virt.driver import AuditsFiles, CachesImages, EmitsEvents, ReportsUsage
from virt.errors import GuestExistsError, HypervisorUnreachableError


@pytest.fixture
def heard(driver):
    """What the driver has told since it began to watch."""
    told = []
    needs(driver, EmitsEvents).watch(told.append)
    return told


def usage_of(driver, spec):
    return [line for line in needs(driver, ReportsUsage).usage() if line.uuid == spec.uuid]


def test_a_guest_that_is_shut_down_inside_is_told_of(driver, world, guest, heard):
    needs_helper(world, "shut_down_inside")
    world.shut_down_inside(guest.name)
    wait_until(lambda: guest.uuid in heard, 2, "the event")


def test_watching_again_tells_of_nothing(driver, world, guest, heard):
    heard.clear()
    driver.watch(heard.append)
    assert None not in heard


def test_a_watcher_is_told_to_look_at_all_when_events_may_have_been_missed(driver, world, heard):
    needs_helper(world, "lose_events")
    heard.clear()
    world.lose_events()

    def watches_anew():
        with contextlib.suppress(HypervisorUnreachableError):
            driver.watch(heard.append)
        return None in heard

    wait_until(watches_anew, 3, "a new watch")


def test_a_guest_that_is_on_has_its_counters(driver, guest):
    (line,) = usage_of(driver, guest)
    assert (line.name, line.power.is_on) == (guest.name, True)
    assert line.cpu_time_ns >= 0
    assert all(disk.read_bytes >= 0 for disk in line.disks.values())


def test_a_guest_that_is_off_uses_nothing(driver, guest):
    needs(driver, ReportsUsage)
    driver.power_off(guest)
    assert usage_of(driver, guest) == []


def test_somebody_elses_guest_is_not_counted(driver, world):
    needs_helper(world, "make_foreign_guest")
    name = world.make_foreign_guest()
    assert name not in [line.name for line in needs(driver, ReportsUsage).usage()]


def test_an_image_that_a_guest_has_is_not_evicted(driver, guest):
    needs(driver, CachesImages).evict_images(0)
    driver.reboot(guest)


def test_an_image_that_nobody_has_is_evicted_once(driver, make):
    caches, spec = needs(driver, CachesImages), make()
    driver.spawn(spec)
    driver.destroy(spec)
    caches.evict_images(0)
    assert caches.evict_images(0) == []


def test_a_guest_that_is_here_has_no_stray_files_and_lacks_none(driver, guest):
    audits = needs(driver, AuditsFiles)
    assert guest.name not in audits.stray_files([])
    assert audits.missing_files([guest]) == []


def test_a_guest_that_is_not_here_lacks_its_files(driver, make):
    spec = make()
    assert [name for name, _ in needs(driver, AuditsFiles).missing_files([spec])] == [spec.name]


def test_stray_files_are_those_of_no_known_guest(driver, world, make):
    audits = needs(driver, AuditsFiles)
    needs_helper(world, "leave_files")
    spec = make()
    world.leave_files(spec)
    assert spec.name in audits.stray_files([])
    assert spec.name not in audits.stray_files([spec.name])
    audits.remove_stray_files(spec.name)
    assert spec.name not in audits.stray_files([])
    assert world.leftovers(spec) == []


def test_files_of_a_guest_that_is_here_are_not_removed(driver, guest):
    with pytest.raises(GuestExistsError):
        needs(driver, AuditsFiles).remove_stray_files(guest.name)
    assert driver.missing_files([dataclasses.replace(guest)]) == []
