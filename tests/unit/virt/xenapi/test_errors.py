"""What xapi refuses is told apart, and nothing that the driver calls is anything that xapi has not."""

from __future__ import annotations

import dataclasses

import pytest

from tests.fakes.xenapi import violations
from virt import errors
from virt.xenapi.errors import _KINDS, _PREFIXES, XapiError, refusal

MEANINGS = {
    "HANDLE_INVALID": XapiError,
    "UUID_INVALID": XapiError,
    "SR_FULL": errors.DiskFullError,
    "SR_BACKEND_FAILURE_44": errors.DiskFullError,
    "MAC_INVALID": errors.NetworkError,
    "MAC_STILL_EXISTS": errors.NetworkError,
    "NETWORK_ALREADY_CONNECTED": errors.NetworkError,
}


@pytest.mark.parametrize("code", sorted(_KINDS))
def test_every_code_of_the_table_is_raised_as_what_it_means(world, driver, guest, code):
    driver.power_off(guest)
    world.pool.faults.fail("VM.start_on", code, "SR", "OpaqueRef:x")
    with pytest.raises(MEANINGS.get(code, errors.GuestStateError), match=f"VM.start_on: {code}"):
        driver.power_on(guest)


@pytest.mark.parametrize(("code", "kind"), [
    ("SR_BACKEND_FAILURE_46", errors.DiskError), ("VDI_IN_USE", errors.DiskError),
    ("NETWORK_SRIOV_ALREADY_ENABLED", errors.NetworkError), ("PIF_IS_VLAN", errors.NetworkError),
    ("VLAN_TAG_INVALID", errors.NetworkError), ("HOST_NOT_ENOUGH_FREE_MEMORY", errors.HypervisorError),
])  # fmt: skip
def test_a_family_of_codes_is_known_by_its_first_letters(code, kind):
    assert isinstance(refusal("VM.start", [code]), kind)
    assert set(_PREFIXES) == {"SR_", "VDI_", "NETWORK_", "PIF_", "VLAN_"}


def test_a_vm_that_is_gone_is_a_guest_that_is_gone():
    assert isinstance(refusal("VM.pause", ["HANDLE_INVALID", "VM", "OpaqueRef:x"]), errors.GuestNotFoundError)
    assert not isinstance(refusal("VDI.destroy", ["HANDLE_INVALID", "VDI", "OpaqueRef:x"]), errors.GuestNotFoundError)


def test_too_little_memory_is_said_in_xapis_words(world, driver, guest):
    driver.power_off(guest)
    with pytest.raises(errors.HypervisorError, match="HOST_NOT_ENOUGH_FREE_MEMORY"):
        driver.power_on(dataclasses.replace(guest, memory_mb=10**6))


def test_every_call_is_one_that_the_published_interface_has(world, driver):
    volume = world.make_volume(device="/dev/vdc")
    spec = world.make_guest(volumes=(volume,), ephemeral_gb=1)
    driver.spawn(spec)
    for work in (driver.pause, driver.unpause, driver.suspend, driver.resume, driver.reboot, driver.get_diagnostics):
        work(spec)
    driver.snapshot(spec, str(world.folder / "snapshot"))
    driver.rescue(spec, world.make_guest(name=spec.name, uuid=spec.uuid))
    driver.unrescue(spec)
    driver.live_migration(spec, "other")
    info = world.second().migrate_disk_and_power_off(spec, "here")
    driver.finish_resize(spec, info)
    world.second().confirm_resize(spec)
    driver.detach_volume(spec, volume)
    driver.destroy(spec)
    assert violations(world.pool.calls) == []
