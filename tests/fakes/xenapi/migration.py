"""VMs moved to another host, with or without their disks."""

from __future__ import annotations

from tests.fakes.xenapi.errors import NULL, ApiError
from tests.fakes.xenapi.lifecycle import HALTED, RUNNING, require
from tests.fakes.xenapi.power import assert_can_boot_here, free_memory, settle_on
from tests.fakes.xenapi.registry import Context, handler
from tests.fakes.xenapi.storage import is_plugged, move, require_room

Map = dict[str, str]


@handler("VM.pool_migrate")
def pool_migrate(x: Context, ref: str, host: str, _options: Map) -> None:
    """Move a running VM to a host that sees its disks."""
    require(x.db, "VM", ref, "pool_migrate")
    assert_can_boot_here(x, ref, host)
    settle_on(x, ref, host)


@handler("host.migrate_receive")
def migrate_receive(x: Context, host: str, network: str, _options: Map) -> Map:
    """What migrate_send has to know to reach this host."""
    x.db.get("network", network)
    if not x.db.get("host", host)["enabled"]:
        raise ApiError("HOST_DISABLED", host)
    address, master = x.db.get("host", host)["address"], x.pool.master.address
    return {"SM": f"https://{address}/services/SM", "xenops": f"https://{address}/services/xenops", "host": host,
            "session_id": x.session, "master": f"https://{master}/"}  # fmt: skip


def _disks(x: Context, ref: str) -> dict[str, str]:
    """The storages of the VM's disks, by VDI."""
    vbds = (x.db.get("VBD", vbd) for vbd in x.db.get("VM", ref)["VBDs"])
    return {vbd["VDI"]: x.db.get("VDI", vbd["VDI"])["SR"] for vbd in vbds if not vbd["empty"]}


@handler("VM.assert_can_migrate")
def assert_can_migrate(x: Context, ref: str, dest: Map, _live: bool, vdis: Map, vifs: Map, _options: Map,
                       _vgpus: Map | None = None) -> None:  # fmt: skip
    """Say why migrate_send would not do."""
    require(x.db, "VM", ref, "migrate_send")
    host = dest.get("host", "")
    if not {"SM", "xenops", "session_id", "master"} <= dest.keys():
        raise ApiError("INVALID_VALUE", "dest", str(sorted(dest)))
    if not x.db.get("host", host)["enabled"]:
        raise ApiError("HOST_DISABLED", host)
    for vif, network in vifs.items():
        x.db.get("VIF", vif)
        x.db.get("network", network)
    for vdi, sr in _disks(x, ref).items():
        _require_target(x, ref, vdi, vdis.get(vdi, sr), host, mapped=vdi in vdis)
    if unknown := vdis.keys() - _disks(x, ref).keys():
        raise ApiError("VDI_NOT_IN_MAP", min(unknown))
    vm = x.db.get("VM", ref)
    if vm["power_state"] == RUNNING and vm["resident_on"] != host and vm["memory_dynamic_max"] > free_memory(x, host):
        raise ApiError("HOST_NOT_ENOUGH_FREE_MEMORY", str(vm["memory_dynamic_max"]), str(free_memory(x, host)))


def _require_target(x: Context, ref: str, vdi: str, sr: str, host: str, *, mapped: bool) -> None:
    x.db.get("SR", sr)
    if not is_plugged(x, sr, host):
        raise ApiError("VM_REQUIRES_SR", ref, sr) if mapped else ApiError("VDI_NOT_IN_MAP", vdi)
    if x.db.get("VDI", vdi)["SR"] != sr:
        if x.db.get("SR", sr)["content_type"] == "iso" or x.db.get("SR", sr)["type"] == "iscsi":
            raise ApiError("SR_DOES_NOT_SUPPORT_MIGRATION", sr)
        require_room(x, sr, x.disks.used(x.db.get("VDI", vdi)["uuid"]))


@handler("VM.migrate_send")
def migrate_send(x: Context, ref: str, dest: Map, live: bool, vdis: Map, vifs: Map, options: Map,
                 _vgpus: Map | None = None, _formats: Map | None = None) -> str:  # fmt: skip
    """Move a VM with its disks; within a pool it keeps its reference, the disks get new ones."""
    assert_can_migrate(x, ref, dest, live, vdis, vifs, options)
    for vdi, sr in vdis.items():
        move(x, vdi, sr)
    for vif, network in vifs.items():
        x.db.update("VIF", vif, network=network)
    vm = x.db.get("VM", ref)
    if vm["power_state"] == RUNNING:
        settle_on(x, ref, dest["host"])
    elif vm["power_state"] == HALTED:
        x.db.update("VM", ref, affinity=dest["host"], resident_on=NULL)
    return ref
