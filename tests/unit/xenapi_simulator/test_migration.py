"""VMs move between hosts, with or without their disks."""

from __future__ import annotations

from typing import Any

from tests.fakes.xenapi import Pool
from tests.unit.xenapi_simulator.conftest import Client

LIVE = {"live": "true"}


def target(xapi: Client, host: str) -> dict[str, str]:
    """What migrate_send has to know of a host."""
    found: dict[str, str] = xapi("host.migrate_receive", xapi.pool.host(host).ref, xapi.pool.network("private"), {})
    return found


def with_disk(xapi: Client, sr: str) -> tuple[str, str]:
    """A VM that runs on alpha, and its disk."""
    vm, vdi = xapi.vm(), xapi.vdi(sr)
    xapi.vbd(vm, vdi)
    xapi("VM.start_on", vm, xapi.pool.host("alpha").ref, False, False)
    xapi.pool.write_vdi(vdi, 0, b"data")
    return vm, vdi


def test_a_vm_on_shared_storage_moves_alone(pool: Pool, xapi: Client) -> None:
    vm, vdi = with_disk(xapi, pool.shared_sr)
    xapi("VM.pool_migrate", vm, pool.host("beta").ref, LIVE)
    assert xapi("VM.get_resident_on", vm) == pool.host("beta").ref
    assert xapi("host.get_resident_VMs", pool.host("beta").ref)[-1] == vm
    assert list(pool.records("VDI")) == [vdi]
    assert pool.host("beta").url in xapi("console.get_location", xapi("VM.get_consoles", vm)[0])


def test_a_vm_on_local_storage_does_not_move_alone(pool: Pool, xapi: Client) -> None:
    vm, _ = with_disk(xapi, pool.local_sr("alpha"))
    refusal = ["VM_REQUIRES_SR", vm, pool.local_sr("alpha")]
    assert xapi.refused("VM.pool_migrate", vm, pool.host("beta").ref, LIVE) == refusal


def test_a_vm_moves_with_its_disks(pool: Pool, xapi: Client) -> None:
    vm, vdi = with_disk(xapi, pool.local_sr("alpha"))
    args: tuple[Any, ...] = (vm, target(xapi, "beta"), True, {vdi: pool.local_sr("beta")}, {}, {})
    xapi("VM.assert_can_migrate", *args)
    assert xapi("VM.migrate_send", *args) == vm
    [moved] = pool.records("VDI")
    assert moved != vdi
    assert pool.vdi_bytes(moved)[:4] == b"data"
    assert xapi("VM.get_resident_on", vm) == pool.host("beta").ref


def test_every_local_disk_needs_a_place(pool: Pool, xapi: Client) -> None:
    vm, vdi = with_disk(xapi, pool.local_sr("alpha"))
    args: tuple[Any, ...] = (vm, target(xapi, "beta"), True)
    assert xapi.refused("VM.assert_can_migrate", *args, {}, {}, {}) == ["VDI_NOT_IN_MAP", vdi]
    wrong = {vdi: pool.local_sr("alpha")}
    assert xapi.refused("VM.migrate_send", *args, wrong, {}, {}) == ["VM_REQUIRES_SR", vm, pool.local_sr("alpha")]


def test_a_full_storage_takes_no_disk(pool: Pool, xapi: Client) -> None:
    vm, vdi = with_disk(xapi, pool.local_sr("alpha"))
    pool.fill(pool.local_sr("beta"))
    args: tuple[Any, ...] = (vm, target(xapi, "beta"), True, {vdi: pool.local_sr("beta")}, {}, {})
    assert xapi.refused("VM.migrate_send", *args)[0] == "SR_BACKEND_FAILURE_44"
    assert list(pool.records("VDI")) == [vdi]


def test_a_guest_without_tools_does_not_move(pool: Pool, xapi: Client) -> None:
    vm, _ = with_disk(xapi, pool.shared_sr)
    pool.guest(vm).remove_tools()
    assert xapi.refused("VM.pool_migrate", vm, pool.host("beta").ref, LIVE) == ["VM_LACKS_FEATURE", vm]


def test_a_disabled_host_takes_no_vm(pool: Pool, xapi: Client) -> None:
    vm, _ = with_disk(xapi, pool.shared_sr)
    xapi("host.disable", pool.host("beta").ref)
    assert xapi.refused("VM.pool_migrate", vm, pool.host("beta").ref, LIVE)[0] == "HOST_DISABLED"


def test_memory_saved_on_a_local_storage_wakes_there(pool: Pool, xapi: Client) -> None:
    vm, _ = with_disk(xapi, pool.shared_sr)
    xapi("VM.suspend", vm)
    there = pool.host("beta").ref
    assert xapi.refused("VM.resume_on", vm, there, False, False) == ["VM_REQUIRES_SR", vm, pool.local_sr("alpha")]
    xapi("VM.resume", vm, False, False)
    assert xapi("VM.get_resident_on", vm) == pool.host("alpha").ref
