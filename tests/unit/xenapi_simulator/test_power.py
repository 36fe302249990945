"""Power states decide what can be done to a VM, and where it can run."""

from __future__ import annotations

import pytest

from tests.fakes.xenapi import Pool
from tests.unit.xenapi_simulator.conftest import GIB, Client

NULL = "OpaqueRef:NULL"


def test_a_vm_that_runs_is_not_started_again(xapi: Client) -> None:
    vm = xapi.running()
    assert xapi.refused("VM.start", vm, False, False) == ["VM_BAD_POWER_STATE", vm, "halted", "running"]


def test_a_vm_goes_through_its_power_states(xapi: Client) -> None:
    vm, seen = xapi.vm(), []
    steps = ["start_on", "pause", "unpause", "suspend", "resume_on", "clean_reboot", "hard_reboot", "hard_shutdown"]
    for step in steps:
        more = (xapi.pool.master.ref, False, False) if step.endswith("_on") else ()
        xapi(f"VM.{step}", vm, *more)
        seen.append(xapi("VM.get_power_state", vm))
    assert seen == ["Running", "Paused", "Running", "Suspended", "Running", "Running", "Running", "Halted"]


@pytest.mark.parametrize("state", ["Halted", "Running", "Paused", "Suspended"])
def test_what_is_allowed_is_what_is_not_refused(xapi: Client, state: str) -> None:
    vm = xapi.running()
    step = {"Halted": "hard_shutdown", "Paused": "pause", "Suspended": "suspend"}.get(state)
    if step:
        xapi(f"VM.{step}", vm)
    assert xapi("VM.get_power_state", vm) == state
    allowed = set(xapi("VM.get_allowed_operations", vm))
    assert ("pause" in allowed, "start" in allowed) == (state == "Running", state == "Halted")
    for step in sorted({"pause", "unpause", "suspend", "clean_shutdown"} - allowed):
        assert xapi.refused(f"VM.{step}", vm)[:2] == ["VM_BAD_POWER_STATE", vm]


def test_a_running_vm_is_not_destroyed(xapi: Client) -> None:
    vm = xapi.running()
    assert xapi.refused("VM.destroy", vm) == ["VM_BAD_POWER_STATE", vm, "halted, suspended", "running"]


def test_a_blocked_operation_is_refused_with_its_reason(xapi: Client) -> None:
    vm = xapi.vm()
    xapi("VM.set_blocked_operations", vm, {"start": "being rescued"})
    assert xapi.refused("VM.start", vm, False, False) == ["OPERATION_BLOCKED", vm, "being rescued"]
    assert "start" not in xapi("VM.get_allowed_operations", vm)


def test_a_template_does_not_start_until_it_is_provisioned(xapi: Client) -> None:
    vm = xapi("VM.clone", xapi.pool.template, "one")
    assert xapi.refused("VM.start", vm, False, False) == ["VM_IS_TEMPLATE", vm, "start"]
    xapi("VM.provision", vm)
    xapi("VM.start", vm, False, False)
    assert xapi.refused("VM.provision", vm)[0] == "VM_BAD_POWER_STATE"


def test_the_template_of_the_pool_cannot_be_destroyed(xapi: Client) -> None:
    template = xapi.pool.template
    assert xapi.refused("VM.destroy", template) == ["VM_CANNOT_DELETE_DEFAULT_TEMPLATE", template]


def test_the_control_domain_is_left_alone(xapi: Client) -> None:
    domain = xapi("host.get_control_domain", xapi.pool.master.ref)
    assert xapi.refused("VM.hard_shutdown", domain)[0] == "OPERATION_NOT_ALLOWED"


def test_size_is_changed_only_while_the_vm_is_off(xapi: Client) -> None:
    vm = xapi.running()
    limits = [str(GIB)] * 4
    assert xapi.refused("VM.set_VCPUs_max", vm, "2")[0] == "VM_BAD_POWER_STATE"
    assert xapi.refused("VM.set_memory_limits", vm, *limits)[0] == "VM_BAD_POWER_STATE"
    xapi("VM.hard_shutdown", vm)
    xapi("VM.set_memory_limits", vm, *limits)
    assert xapi("VM.get_memory_dynamic_max", vm) == str(GIB)


def test_a_size_that_is_none_is_refused(xapi: Client) -> None:
    vm = xapi.vm()
    assert xapi.refused("VM.set_VCPUs_at_startup", vm, "2")[0] == "INVALID_VALUE"
    assert xapi.refused("VM.set_memory_limits", vm, "1", "2", "3", "3")[0] == "MEMORY_CONSTRAINT_VIOLATION"


def test_a_host_without_memory_takes_no_vm(xapi: Client) -> None:
    vm, host = xapi.vm(), xapi.pool.master.ref
    free = int(xapi("host.compute_free_memory", host))
    xapi("VM.set_memory_limits", vm, "1", str(free + 1), str(free + 1), str(free + 1))
    refusal = ["HOST_NOT_ENOUGH_FREE_MEMORY", str(free + 1), str(free)]
    assert xapi.refused("VM.start_on", vm, host, False, False) == refusal
    assert xapi.refused("VM.start", vm, False, False) == ["NO_HOSTS_AVAILABLE"]


def test_a_vm_runs_only_where_its_disks_are(pool: Pool, xapi: Client) -> None:
    vm = xapi.vm()
    xapi.vbd(vm, xapi.vdi(pool.local_sr("beta")))
    refusal = ["VM_REQUIRES_SR", vm, pool.local_sr("beta")]
    assert xapi.refused("VM.assert_can_boot_here", vm, pool.host("alpha").ref) == refusal
    xapi("VM.start", vm, False, False)
    assert xapi("VM.get_resident_on", vm) == pool.host("beta").ref


def test_a_disabled_host_takes_no_vm(pool: Pool, xapi: Client) -> None:
    xapi("host.disable", pool.master.ref)
    assert xapi.refused("VM.start_on", xapi.vm(), pool.master.ref, False, False) == ["HOST_DISABLED", pool.master.ref]


def test_a_guest_without_tools_is_not_asked(pool: Pool, xapi: Client) -> None:
    pool.settings.tools = False
    vm = xapi.running()
    assert xapi.refused("VM.clean_shutdown", vm) == ["VM_LACKS_FEATURE", vm]
    pool.guest(vm).install_tools()
    xapi("VM.clean_shutdown", vm)


def test_a_deaf_guest_does_not_obey(pool: Pool, xapi: Client) -> None:
    vm = xapi.running()
    pool.guest(vm).set_deaf()
    assert xapi.refused("VM.clean_shutdown", vm) == ["VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT", vm]
    xapi("VM.hard_shutdown", vm)


def test_an_owner_shuts_down_reboots_and_crashes_a_guest(pool: Pool, xapi: Client) -> None:
    vm = xapi.running()
    domain = xapi("VM.get_domid", vm)
    pool.guest(vm).reboot()
    assert xapi("VM.get_domid", vm) != domain
    pool.guest(vm).crash()
    assert xapi("VM.get_power_state", vm) == "Halted"
    xapi("VM.start", vm, False, False)
    pool.guest(vm).shut_down()
    assert xapi("VM.get_resident_on", vm) == NULL


def test_saved_memory_is_a_disk_until_it_is_used(pool: Pool, xapi: Client) -> None:
    vm = xapi.running()
    xapi("VM.suspend", vm)
    assert pool.record("VDI", xapi("VM.get_suspend_VDI", vm))["type"] == "suspend"
    xapi("VM.resume", vm, False, False)
    assert not pool.records("VDI")


def test_saved_memory_goes_with_the_plug(pool: Pool, xapi: Client) -> None:
    vm = xapi.running()
    xapi("VM.suspend", vm)
    xapi("VM.hard_shutdown", vm)
    assert not pool.records("VDI")


def test_a_guest_finds_in_xenstore_what_was_there_at_its_start(pool: Pool, xapi: Client) -> None:
    vm = xapi.vm()
    xapi("VM.add_to_xenstore_data", vm, "vm-data/one", "1")
    xapi("VM.start", vm, False, False)
    xapi("VM.add_to_xenstore_data", vm, "vm-data/two", "2")
    assert pool.guest(vm).xenstore() == {"vm-data/one": "1"}
    xapi("VM.set_xenstore_data", vm, {"vm-data/three": "3"})
    assert pool.guest(vm).xenstore() == {"vm-data/three": "3"}


def test_a_dead_hosts_vm_is_called_off_by_a_reset_alone(pool: Pool, xapi: Client) -> None:
    vm = xapi.running()
    assert xapi.refused("VM.power_state_reset", vm)[0] == "DOMAIN_EXISTS"
    pool.kill_host("alpha")
    xapi("VM.power_state_reset", vm)
    assert xapi("VM.get_power_state", vm) == "Halted"


def test_a_running_vm_has_consoles_and_measurements(xapi: Client) -> None:
    vm = xapi.running()
    protocols = [xapi("console.get_protocol", console) for console in xapi("VM.get_consoles", vm)]
    assert protocols == ["rfb", "vt100"]
    assert xapi("VM.query_data_source", vm, "memory") == 512 * 1024**2
    xapi("VM.hard_shutdown", vm)
    assert not xapi("VM.get_consoles", vm)
    assert xapi.refused("VM.query_data_source", vm, "memory")[0] == "VM_BAD_POWER_STATE"


def test_a_destroyed_vm_leaves_its_disks_and_nothing_else(pool: Pool, xapi: Client) -> None:
    vm = xapi.vm()
    disk = xapi.vdi()
    xapi.vbd(vm, disk)
    xapi.vif(vm)
    xapi("VM.destroy", vm)
    assert list(pool.records("VDI")) == [disk]
    assert not pool.records("VBD")
    assert not pool.records("VIF")


def test_a_clone_has_disks_and_addresses_of_its_own(pool: Pool, xapi: Client) -> None:
    vm = xapi.vm()
    xapi.vbd(vm, xapi.vdi())
    vif = xapi.vif(vm)
    twin = xapi("VM.clone", vm, "twin")
    [own] = xapi("VM.get_VIFs", twin)
    assert xapi("VIF.get_MAC", own) != xapi("VIF.get_MAC", vif)
    [vbd] = xapi("VM.get_VBDs", twin)
    assert xapi("VBD.get_VDI", vbd) != xapi("VBD.get_VDI", xapi("VM.get_VBDs", vm)[0])


def test_a_snapshot_is_a_template_that_does_not_start(xapi: Client) -> None:
    vm = xapi.running()
    snapshot = xapi("VM.snapshot", vm, "before")
    assert xapi("VM.get_is_a_template", snapshot)
    assert xapi("VM.get_snapshots", vm) == [snapshot]
    assert xapi.refused("VM.start", snapshot, False, False) == ["VM_IS_SNAPSHOT", snapshot, "start"]
