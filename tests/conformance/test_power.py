"""Power states and the moves between them."""

from __future__ import annotations

import pytest

from tests.conformance.harness import needs, needs_helper
from virt.driver import Pausable, Suspendable
from virt.errors import GuestNotFoundError, GuestStateError
from virt.power_state import Power


def power_of(driver, spec):
    return driver.get_info(spec.name).power


def bring(driver, spec, power):
    """Put a running guest into a power state."""
    if power is Power.PAUSED:
        needs(driver, Pausable).pause(spec)
    elif power is Power.SUSPENDED:
        needs(driver, Suspendable).suspend(spec)
    elif power is Power.SHUTOFF:
        driver.power_off(spec)


@pytest.mark.parametrize(
    "power", [Power.RUNNING, Power.PAUSED, Power.SUSPENDED, Power.SHUTOFF], ids=lambda power: power.name
)
def test_a_hard_reboot_makes_a_guest_run_whatever_it_did(driver, guest, power):
    bring(driver, guest, power)
    driver.reboot(guest, hard=True)
    assert power_of(driver, guest) is Power.RUNNING


@pytest.mark.parametrize(
    "power", [Power.RUNNING, Power.PAUSED, Power.SUSPENDED, Power.SHUTOFF], ids=lambda power: power.name
)
def test_a_soft_reboot_makes_a_guest_run_whatever_it_did(driver, guest, power):
    bring(driver, guest, power)
    driver.reboot(guest, hard=False, timeout_s=0.2)
    assert power_of(driver, guest) is Power.RUNNING


def test_a_soft_reboot_of_a_deaf_guest_becomes_a_hard_one(driver, world, guest):
    needs_helper(world, "make_deaf")
    world.make_deaf(guest.name)
    driver.reboot(guest, hard=False, timeout_s=0.05)
    assert power_of(driver, guest) is Power.RUNNING


def test_a_reboot_keeps_the_data(driver, world, guest):
    needs_helper(world, "contents")
    before = world.contents(guest.name)
    driver.reboot(guest, hard=True)
    assert world.contents(guest.name) == before


@pytest.mark.parametrize("hard", [True, False])
def test_an_absent_guest_cannot_be_rebooted(driver, make, hard):
    with pytest.raises(GuestNotFoundError):
        driver.reboot(make(), hard=hard)


def test_power_off_stops_a_guest(driver, guest):
    driver.power_off(guest)
    assert power_of(driver, guest) is Power.SHUTOFF


def test_power_off_twice_succeeds(driver, guest):
    driver.power_off(guest)
    driver.power_off(guest)
    assert power_of(driver, guest) is Power.SHUTOFF


def test_power_off_stops_a_guest_that_ignores_the_request(driver, world, guest):
    needs_helper(world, "make_deaf")
    world.make_deaf(guest.name)
    driver.power_off(guest, timeout_s=0.05)
    assert power_of(driver, guest) is Power.SHUTOFF


def test_power_off_stops_a_paused_guest(driver, guest):
    needs(driver, Pausable).pause(guest)
    driver.power_off(guest)
    assert power_of(driver, guest) is Power.SHUTOFF


def test_a_guest_that_is_off_uses_no_memory(driver, guest):
    driver.power_off(guest)
    assert not power_of(driver, guest).is_on
    assert driver.get_info(guest.name).max_mem_kb == guest.memory_mb * 1024


def test_power_on_starts_a_guest(driver, guest):
    driver.power_off(guest)
    driver.power_on(guest)
    assert power_of(driver, guest) is Power.RUNNING


def test_power_on_of_a_running_guest_succeeds(driver, guest):
    driver.power_on(guest)
    assert power_of(driver, guest) is Power.RUNNING


def test_power_on_starts_a_guest_that_shut_itself_down(driver, world, guest):
    needs_helper(world, "shut_down_inside")
    world.shut_down_inside(guest.name)
    assert power_of(driver, guest) is Power.SHUTOFF
    driver.power_on(guest)
    assert power_of(driver, guest) is Power.RUNNING


@pytest.mark.parametrize("verb", ["power_on", "power_off"])
def test_an_absent_guest_has_no_power(driver, make, verb):
    with pytest.raises(GuestNotFoundError):
        getattr(driver, verb)(make())


def test_a_paused_guest_says_so(driver, guest):
    needs(driver, Pausable).pause(guest)
    assert power_of(driver, guest) is Power.PAUSED


def test_a_paused_guest_is_listed_so(driver, guest):
    needs(driver, Pausable).pause(guest)
    assert {fact.name: fact.power for fact in driver.list_guests()}[guest.name] is Power.PAUSED


def test_a_paused_guest_goes_on(driver, guest):
    needs(driver, Pausable).pause(guest)
    driver.unpause(guest)
    assert power_of(driver, guest) is Power.RUNNING


def test_pausing_twice_succeeds(driver, guest):
    needs(driver, Pausable).pause(guest)
    driver.pause(guest)
    assert power_of(driver, guest) is Power.PAUSED


def test_unpausing_a_running_guest_succeeds(driver, guest):
    needs(driver, Pausable).unpause(guest)
    assert power_of(driver, guest) is Power.RUNNING


@pytest.mark.parametrize("verb", ["pause", "unpause"])
def test_a_guest_that_is_off_can_be_neither_paused_nor_unpaused(driver, guest, verb):
    needs(driver, Pausable)
    driver.power_off(guest)
    with pytest.raises(GuestStateError):
        getattr(driver, verb)(guest)
    assert power_of(driver, guest) is Power.SHUTOFF


@pytest.mark.parametrize("verb", ["pause", "unpause"])
def test_an_absent_guest_can_be_neither_paused_nor_unpaused(driver, make, verb):
    needs(driver, Pausable)
    with pytest.raises(GuestNotFoundError):
        getattr(driver, verb)(make())


def test_a_suspended_guest_is_not_on(driver, guest):
    needs(driver, Suspendable).suspend(guest)
    assert power_of(driver, guest) is Power.SUSPENDED


def test_a_suspended_guest_is_listed_so(driver, guest):
    needs(driver, Suspendable).suspend(guest)
    assert {fact.name: fact.power for fact in driver.list_guests()}[guest.name] is Power.SUSPENDED


def test_a_suspended_guest_goes_on(driver, guest):
    needs(driver, Suspendable).suspend(guest)
    driver.resume(guest)
    assert power_of(driver, guest) is Power.RUNNING


def test_suspending_twice_succeeds(driver, guest):
    needs(driver, Suspendable).suspend(guest)
    driver.suspend(guest)
    assert power_of(driver, guest) is Power.SUSPENDED


def test_resuming_a_running_guest_succeeds(driver, guest):
    needs(driver, Suspendable).resume(guest)
    assert power_of(driver, guest) is Power.RUNNING


@pytest.mark.parametrize("verb", ["suspend", "resume"])
def test_a_guest_that_is_off_can_be_neither_suspended_nor_resumed(driver, guest, verb):
    needs(driver, Suspendable)
    driver.power_off(guest)
    with pytest.raises(GuestStateError):
        getattr(driver, verb)(guest)
    assert power_of(driver, guest) is Power.SHUTOFF


@pytest.mark.parametrize("verb", ["suspend", "resume"])
def test_an_absent_guest_can_be_neither_suspended_nor_resumed(driver, make, verb):
    needs(driver, Suspendable)
    with pytest.raises(GuestNotFoundError):
        getattr(driver, verb)(make())


def test_a_suspended_guest_can_be_destroyed(driver, world, guest):
    needs(driver, Suspendable).suspend(guest)
    driver.destroy(guest)
    assert world.leftovers(guest) == []
