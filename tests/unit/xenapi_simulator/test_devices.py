"""Disks and interfaces are plugged by xapi's rules."""

from __future__ import annotations

import pytest

from tests.fakes.xenapi import Pool
from tests.unit.xenapi_simulator.conftest import Client


def test_a_disk_is_plugged_into_a_running_vm(pool: Pool, xapi: Client) -> None:
    vm = xapi.running()
    vbd = xapi.vbd(vm, xapi.vdi())
    xapi("VBD.plug", vbd)
    assert xapi.refused("VBD.plug", vbd) == ["DEVICE_ALREADY_ATTACHED", vbd]
    xapi("VBD.unplug", vbd)
    assert xapi.refused("VBD.unplug", vbd) == ["DEVICE_ALREADY_DETACHED", vbd]


def test_nothing_is_plugged_into_a_vm_that_is_off(xapi: Client) -> None:
    vm = xapi.vm()
    assert xapi.refused("VBD.plug", xapi.vbd(vm, xapi.vdi())) == ["VM_BAD_POWER_STATE", vm, "running", "halted"]


def test_a_guest_without_tools_takes_no_disk(pool: Pool, xapi: Client) -> None:
    pool.settings.tools = False
    vm = xapi.running()
    assert xapi.refused("VBD.plug", xapi.vbd(vm, xapi.vdi())) == ["VM_MISSING_PV_DRIVERS", vm]


def test_a_guest_may_hold_on_to_a_disk(pool: Pool, xapi: Client) -> None:
    vm = xapi.running()
    vbd = xapi.vbd(vm, xapi.vdi())
    xapi("VBD.plug", vbd)
    pool.guest(vm).holds(vbd)
    assert xapi.refused("VBD.unplug", vbd)[:3] == ["DEVICE_DETACH_REJECTED", "VBD", vbd]
    assert xapi("VBD.get_currently_attached", vbd)
    xapi("VBD.unplug_force", vbd)


def test_a_vbd_is_unplugged_before_it_is_destroyed(xapi: Client) -> None:
    vm = xapi.vm()
    vbd = xapi.vbd(vm, xapi.vdi())
    xapi("VM.start", vm, False, False)
    assert xapi.refused("VBD.destroy", vbd)[0] == "OPERATION_NOT_ALLOWED"
    xapi("VM.hard_shutdown", vm)
    xapi("VBD.destroy", vbd)


def test_a_device_is_taken_once(xapi: Client) -> None:
    vm = xapi.vm()
    xapi.vbd(vm, xapi.vdi(), userdevice="0")
    for device in ("0", "xvda"):
        with pytest.raises(Exception, match="DEVICE_ALREADY_EXISTS"):
            xapi.vbd(vm, xapi.vdi(), userdevice=device)
    assert xapi("VM.get_allowed_VBD_devices", vm)[0] == "1"
    with pytest.raises(Exception, match="INVALID_DEVICE"):
        xapi.vbd(vm, xapi.vdi(), userdevice="16")


def test_a_disk_is_written_by_one_vm(xapi: Client) -> None:
    disk, other = xapi.vdi(), xapi.vm("other")
    vm = xapi.vm()
    xapi.vbd(vm, disk)
    xapi.vbd(other, disk)
    xapi("VM.start", vm, False, False)
    assert xapi.refused("VM.start", other, False, False) == ["VDI_IN_USE", disk]


def test_a_drive_takes_only_what_is_on_an_iso_storage(xapi: Client) -> None:
    vm, disk = xapi.vm(), xapi.vdi()
    with pytest.raises(Exception, match="VDI_IS_NOT_ISO"):
        xapi.vbd(vm, disk, type="CD", mode="RO")
    with pytest.raises(Exception, match="VBD_CDS_MUST_BE_READONLY"):
        xapi.vbd(vm, "OpaqueRef:NULL", type="CD", mode="RW", empty=True)


def test_an_hvm_guest_has_no_read_only_disk(xapi: Client) -> None:
    vm = xapi.vm()
    vbd = xapi.vbd(vm, xapi.vdi(), mode="RO")
    assert xapi.refused("VM.start", vm, False, False) == ["DISK_VBD_MUST_BE_READWRITE_FOR_HVM", vbd]


def test_an_empty_drive_stays_where_it_is(xapi: Client) -> None:
    vm = xapi.vm()
    drive = xapi.vbd(vm, "OpaqueRef:NULL", type="CD", mode="RO", empty=True)
    xapi("VM.start", vm, False, False)
    assert xapi.refused("VBD.eject", drive) == ["VBD_IS_EMPTY", drive]
    assert xapi.refused("VBD.unplug", drive)[0] == "OPERATION_NOT_ALLOWED"


def test_an_interface_is_plugged_and_unplugged(xapi: Client) -> None:
    vm = xapi.running()
    vif = xapi.vif(vm)
    xapi("VIF.plug", vif)
    assert xapi.refused("VIF.destroy", vif) == ["OPERATION_NOT_ALLOWED", "VIF currently attached to a running VM"]
    xapi("VIF.unplug", vif)
    xapi("VIF.destroy", vif)


@pytest.mark.parametrize(
    ("values", "code"), [({"MAC": "02:00"}, "MAC_INVALID"), ({"device": "eth0"}, "INVALID_DEVICE")]
)
def test_an_interface_that_is_none_is_refused(xapi: Client, values: dict[str, str], code: str) -> None:
    with pytest.raises(Exception, match=code):
        xapi.vif(xapi.vm(), **values)


def test_an_interface_is_locked_to_its_addresses(xapi: Client) -> None:
    vif = xapi.vif(xapi.vm())
    xapi("VIF.set_locking_mode", vif, "locked")
    xapi("VIF.set_ipv4_allowed", vif, ["10.0.0.3", "10.0.0.3"])
    xapi("VIF.set_ipv6_allowed", vif, ["fd00::3"])
    record = xapi("VIF.get_record", vif)
    assert (record["locking_mode"], record["ipv4_allowed"], record["ipv6_allowed"]) == (
        "locked", ["10.0.0.3"], ["fd00::3"],
    )  # fmt: skip


@pytest.mark.parametrize("address", ["10.0.0.3/24", "fd00::3", "nonsense"])
def test_what_is_no_address_is_not_allowed(xapi: Client, address: str) -> None:
    refusal = ["INVALID_VALUE", "ipv4_allowed", address]
    assert xapi.refused("VIF.set_ipv4_allowed", xapi.vif(xapi.vm()), [address]) == refusal


def test_a_vlan_is_made_on_every_host(pool: Pool, xapi: Client) -> None:
    network = xapi("network.create", {"name_label": "vlan7", "other_config": {}})
    [pif, _] = xapi("network.get_PIFs", pool.network("private"))
    assert len(xapi("pool.create_VLAN_from_PIF", pif, network, "7")) == 2
    assert len(xapi("network.get_PIFs", network)) == 2
    assert xapi.refused("pool.create_VLAN_from_PIF", pif, network, "4095") == ["VLAN_TAG_INVALID", "4095"]
    assert xapi.refused("network.destroy", network)[0] == "NETWORK_CONTAINS_PIF"
