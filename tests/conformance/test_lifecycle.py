"""Making, listing and removing guests."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tests.conformance.harness import needs_helper, undeclared
from virt.driver import CAPABILITIES
from virt.errors import GuestExistsError, GuestNotFoundError, HypervisorUnreachableError, ImageError
from virt.power_state import Power
from virt.spec import GuestInfo


class CancelledByTestError(Exception):
    """What a progress callback raises to cancel."""


def names(driver):
    return {fact.name for fact in driver.list_guests()}


def test_the_declared_capabilities_are_the_actual_ones(driver, target):
    assert undeclared(driver, target, frozenset(cap.__name__ for cap in CAPABILITIES)) == {}


def test_a_spawned_guest_runs(driver, guest):
    assert driver.get_info(guest.name).power is Power.RUNNING


def test_a_spawned_guest_is_listed_as_ours_with_its_uuid(driver, guest):
    [fact] = [fact for fact in driver.list_guests() if fact.name == guest.name]
    assert (fact.power, fact.uuid, fact.ours) == (Power.RUNNING, guest.uuid, True)


def test_a_guest_has_the_size_asked_for(driver, guest):
    info = driver.get_info(guest.name)
    assert (info.max_mem_kb, info.num_cpu) == (guest.memory_mb * 1024, guest.vcpus)


def test_info_is_frozen_and_complete(driver, guest):
    info = driver.get_info(guest.name)
    assert isinstance(info, GuestInfo)
    assert 0 < info.mem_kb <= info.max_mem_kb
    assert info.cpu_time_ns >= 0


def test_a_second_guest_of_that_name_is_refused(driver, guest):
    with pytest.raises(GuestExistsError):
        driver.spawn(guest)
    assert driver.get_info(guest.name).power is Power.RUNNING


def test_a_guest_may_have_a_display_name_in_any_script(driver, make):
    spec = make(display_name="Gäste-Ω-客 <&\"'>")
    driver.spawn(spec)
    assert spec.name in names(driver)


def test_guests_are_listed_each_once(driver, make):
    specs = [make(), make(), make()]
    for spec in specs:
        driver.spawn(spec)
    listed = [fact.name for fact in driver.list_guests()]
    assert sorted(name for name in listed if name in {spec.name for spec in specs}) == sorted(s.name for s in specs)


def test_the_listing_and_the_info_agree(driver, make):
    on, off = make(), make()
    driver.spawn(on)
    driver.spawn(off)
    driver.power_off(off)
    powers = {fact.name: fact.power for fact in driver.list_guests()}
    assert all(powers[spec.name] is driver.get_info(spec.name).power for spec in (on, off))


def test_a_foreign_guest_is_listed_as_not_ours(driver, world):
    needs_helper(world, "make_foreign_guest")
    name = world.make_foreign_guest()
    [fact] = [fact for fact in driver.list_guests() if fact.name == name]
    assert (fact.uuid, fact.ours) == (None, False)


def test_an_unknown_guest_is_not_found(driver):
    with pytest.raises(GuestNotFoundError):
        driver.get_info("instance-ffffffff")


def test_a_destroyed_guest_is_gone(driver, guest):
    driver.destroy(guest)
    assert guest.name not in names(driver)
    with pytest.raises(GuestNotFoundError):
        driver.get_info(guest.name)


def test_a_destroyed_guest_leaves_nothing(driver, world, guest):
    assert world.leftovers(guest) != []
    driver.destroy(guest)
    assert world.leftovers(guest) == []


def test_destroying_twice_succeeds(driver, guest):
    driver.destroy(guest)
    driver.destroy(guest)


def test_destroying_a_guest_that_never_was_succeeds(driver, make):
    driver.destroy(make())


def test_a_guest_that_is_off_can_be_destroyed(driver, world, guest):
    driver.power_off(guest)
    driver.destroy(guest)
    assert world.leftovers(guest) == []


def test_destroying_one_guest_leaves_its_neighbours(driver, guest, make):
    other = make()
    driver.spawn(other)
    driver.destroy(other)
    assert driver.get_info(guest.name).power is Power.RUNNING


def test_a_name_is_free_again_after_destroy(driver, guest):
    driver.destroy(guest)
    driver.spawn(guest)
    assert driver.get_info(guest.name).power is Power.RUNNING


def test_a_guest_with_a_missing_image_leaves_nothing(driver, world):
    spec = world.broken_guest()
    with pytest.raises(ImageError):
        driver.spawn(spec)
    assert world.leftovers(spec) == []
    assert spec.name not in names(driver)


def test_a_spawn_can_be_repeated_after_a_failure(driver, world, make):
    spec = make()
    with pytest.raises(ImageError):
        driver.spawn(dataclasses.replace(spec, image=world.broken_guest().image))
    driver.spawn(spec)
    assert driver.get_info(spec.name).power is Power.RUNNING


def test_spawn_reports_progress(driver, make):
    steps = []
    driver.spawn(make(), steps.append)
    assert len(steps) >= 2
    assert all(steps)


@pytest.mark.parametrize("last", [1, 2])
def test_a_cancelled_spawn_leaves_nothing(driver, world, make, last):
    spec, steps = make(), []

    def cancel(step):
        steps.append(step)
        if len(steps) == last:
            raise CancelledByTestError

    with pytest.raises(CancelledByTestError):
        driver.spawn(spec, cancel)
    assert world.leftovers(spec) == []


def test_a_spawn_cancelled_at_its_last_step_leaves_nothing(driver, world, make):
    rehearsal, spec, steps = make(), make(), []
    driver.spawn(rehearsal, steps.append)
    remaining = iter(steps[1:])

    def cancel(step):
        if next(remaining, None) is None:
            raise CancelledByTestError

    with pytest.raises(CancelledByTestError):
        driver.spawn(spec, cancel)
    assert world.leftovers(spec) == []


def test_the_host_has_what_it_says_it_uses(driver, guest):
    host = driver.host_resources()
    assert host.vcpus > 0
    assert 0 <= host.memory_mb_used <= host.memory_mb
    assert 0 <= host.local_gb_used <= host.local_gb
    assert host.hypervisor_type
    assert host.hypervisor_version > 0


def test_the_host_describes_its_cpu(driver):
    cpu = json.loads(driver.host_resources().cpu_info)
    assert {"arch", "model", "vendor", "topology", "features"} <= set(cpu)


def test_a_running_guest_counts_as_cpus_in_use(driver, make):
    before = driver.host_resources().vcpus_used
    driver.spawn(make(vcpus=1))
    assert driver.host_resources().vcpus_used == before + 1


def test_a_destroyed_guest_frees_what_it_used(driver, make):
    before, spec = driver.host_resources().vcpus_used, make()
    driver.spawn(spec)
    driver.destroy(spec)
    assert driver.host_resources().vcpus_used == before


def test_an_unreachable_hypervisor_is_not_an_empty_one(driver, world, guest):
    needs_helper(world, "cut_off")
    with world.cut_off(), pytest.raises(HypervisorUnreachableError):
        driver.list_guests()


def test_an_unreachable_hypervisor_does_not_say_that_a_guest_is_gone(driver, world, guest):
    needs_helper(world, "cut_off")
    for ask in (lambda: driver.get_info(guest.name), lambda: driver.destroy(guest), driver.host_resources):
        with world.cut_off(), pytest.raises(HypervisorUnreachableError):
            ask()


def test_a_guest_is_there_still_when_the_hypervisor_answers_again(driver, world, guest):
    needs_helper(world, "cut_off")
    with world.cut_off(), pytest.raises(HypervisorUnreachableError):
        driver.destroy(guest)
    assert driver.get_info(guest.name).power is Power.RUNNING


def test_closing_twice_does_no_harm(world, target):
    if target.shared:
        with target.build() as own:
            own.driver.close()
            own.driver.close()
        return
    world.driver.close()
    world.driver.close()
