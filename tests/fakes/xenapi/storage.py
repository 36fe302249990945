"""VDIs: made, copied, grown and destroyed on a storage that has an end, with the chains of VHD."""

from __future__ import annotations

import uuid
from typing import Any

from tests.fakes.xenapi.database import Record, now
from tests.fakes.xenapi.errors import NULL, ApiError, storage_full
from tests.fakes.xenapi.lifecycle import require
from tests.fakes.xenapi.registry import Context, handler

GRAIN = 2 << 20
OVERHEAD = 4 << 20
MOST_IN_A_CHAIN = 30
OF_VHD = {"ext", "nfs", "lvm", "lvmoiscsi"}
_COPIED = ("name_label", "name_description", "type", "sharable", "read_only", "other_config", "xenstore_data", "tags")


def is_plugged(x: Context, sr: str, host: str = "") -> bool:
    """Whether the storage is attached to the host, or to any."""
    pbds = [x.db.get("PBD", pbd) for pbd in x.db.get("SR", sr)["PBDs"]]
    return any(pbd["currently_attached"] and host in {"", pbd["host"]} for pbd in pbds)


def require_plugged(x: Context, sr: str) -> None:
    """SR_HAS_NO_PBDS unless some host has the storage attached."""
    if not is_plugged(x, sr):
        raise ApiError("SR_HAS_NO_PBDS", sr)


def require_room(x: Context, sr: str, needed: int) -> None:
    """SR_BACKEND_FAILURE_44 when so many bytes do not fit."""
    record = x.db.get("SR", sr)
    if sr in x.pool.full or needed > record["physical_size"] - record["physical_utilisation"]:
        raise storage_full()


def measure(x: Context, sr: str) -> None:
    """Write down how much of the storage is used."""
    vdis = [(ref, x.db.get("VDI", ref)) for ref in x.db.get("SR", sr)["VDIs"]]
    used = {ref: x.disks.used(vdi["uuid"]) for ref, vdi in vdis}
    for ref, size in used.items():
        x.db.update("VDI", ref, physical_utilisation=size)
    total = x.db.get("SR", sr)["physical_size"] if sr in x.pool.full else sum(used.values())
    x.db.update("SR", sr, physical_utilisation=total, virtual_allocation=sum(vdi["virtual_size"] for _, vdi in vdis))


def add(x: Context, sr: str, size: int, **values: Any) -> str:
    """A new VDI with an empty disk."""
    record = x.db.get("SR", sr)
    thick = record["type"].startswith("lvm")
    require_room(x, sr, size + OVERHEAD if thick else OVERHEAD)
    location = str(uuid.uuid4())
    facts = {"uuid": location, "location": location, "SR": sr, "virtual_size": size, "managed": True, "parent": NULL}
    ref = x.db.create("VDI", facts | values)
    x.disks.create(location, size)
    measure(x, sr)
    return ref


def rounded(size: int, kind: str) -> int:
    """The size that a VHD gets which is to have at least this one."""
    if size <= 0:
        raise ApiError("SR_BACKEND_FAILURE_79", "", "VDI Invalid size [opterr=VDI size must be positive]", "")
    return -(-size // GRAIN) * GRAIN if kind in OF_VHD else size


def duplicate(x: Context, source: str, sr: str = "", **values: Any) -> str:
    """A new VDI with the bytes and the descriptive fields of another."""
    old = x.db.get("VDI", source)
    sr = sr or old["SR"]
    kept = {name: old[name] for name in _COPIED}
    require_room(x, sr, OVERHEAD + x.disks.used(old["uuid"]) * (sr != old["SR"]))
    ref = add(x, sr, rounded(old["virtual_size"], x.db.get("SR", sr)["type"]), **(kept | values))
    new = x.db.get("VDI", ref)
    x.disks.copy(old["uuid"], new["uuid"])
    x.disks.create(new["uuid"], new["virtual_size"])
    measure(x, sr)
    return ref


def depth(x: Context, vdi: Record) -> int:
    """How many disks a VHD hangs on."""
    found = 0
    while parent := vdi["sm_config"].get("vhd-parent"):
        vdi, found = x.db.get("VDI", x.db.by_uuid("VDI", parent)), found + 1
    return found


def fork(x: Context, source: str, **values: Any) -> str:
    """Make a second child of what the disk holds now: a hidden base copy becomes the parent of both."""
    old = x.db.get("VDI", source)
    if depth(x, old) + 1 >= MOST_IN_A_CHAIN:
        raise ApiError("SR_BACKEND_FAILURE_109", "", "The snapshot chain is too long", "")
    ref = duplicate(x, source, **values)
    if x.db.get("SR", old["SR"])["type"] in OF_VHD:
        above = {"vhd-parent": old["sm_config"]["vhd-parent"]} if "vhd-parent" in old["sm_config"] else {}
        base = add(x, old["SR"], old["virtual_size"], name_label="base copy", managed=False, read_only=True,
                   type="user", sm_config=above)  # fmt: skip
        parent = {"vhd-parent": x.db.get("VDI", base)["uuid"]}
        for child in (source, ref):
            x.db.update("VDI", child, sm_config=x.db.get("VDI", child)["sm_config"] | parent)
    return ref


def coalesce(x: Context, sr: str) -> None:
    """Merge base copies with only one child into it, and drop those with none, unless the storage never does."""
    if not x.settings.coalesce:
        return
    while lonely := _lonely(x, sr):
        ref, children = lonely
        base = x.db.get("VDI", ref)
        for child in children:
            kept = {key: value for key, value in x.db.get("VDI", child)["sm_config"].items() if key != "vhd-parent"}
            above = {"vhd-parent": base["sm_config"]["vhd-parent"]} if "vhd-parent" in base["sm_config"] else {}
            x.db.update("VDI", child, sm_config=kept | above)
        remove(x, ref)


def _lonely(x: Context, sr: str) -> tuple[str, list[str]] | None:
    vdis = x.db.get("SR", sr)["VDIs"]
    for ref in vdis:
        vdi = x.db.get("VDI", ref)
        if not vdi["managed"]:
            children = [one for one in vdis if x.db.get("VDI", one)["sm_config"].get("vhd-parent") == vdi["uuid"]]
            if len(children) < 2:
                return ref, children
    return None


def remove(x: Context, ref: str) -> None:
    """Remove a VDI, its disk, and the VBDs that showed it."""
    vdi = x.db.get("VDI", ref)
    for vbd in list(vdi["VBDs"]):
        if x.db.get("VBD", vbd)["type"] == "CD":
            x.db.update("VBD", vbd, VDI=NULL, empty=True)
        else:
            x.db.destroy("VBD", vbd)
    if x.db.get("SR", vdi["SR"])["type"] != "iscsi":
        x.disks.remove(vdi["uuid"])
    x.db.destroy("VDI", ref)
    measure(x, vdi["SR"])


@handler("VDI.create")
def create(x: Context, args: Record) -> str:
    """Make an empty disk."""
    kind = x.db.get("SR", args["SR"])["type"]
    require_plugged(x, args["SR"])
    if kind in {"iso", "iscsi", "udev"}:
        raise ApiError("SR_OPERATION_NOT_SUPPORTED", args["SR"])
    kept = {name: args[name] for name in (*_COPIED, "sm_config")}
    return add(x, args["SR"], rounded(args["virtual_size"], kind), **kept)


@handler("VDI.destroy")
def destroy(x: Context, ref: str) -> None:
    """Remove a disk that nothing uses."""
    require(x.db, "VDI", ref, "destroy")
    sr = x.db.get("VDI", ref)["SR"]
    remove(x, ref)
    coalesce(x, sr)


@handler("VDI.clone")
def clone(x: Context, ref: str, _driver_params: dict[str, str] | None = None) -> str:
    """A copy on write on the same storage."""
    require(x.db, "VDI", ref, "clone")
    return fork(x, ref)


@handler("VDI.snapshot")
def snapshot(x: Context, ref: str, _driver_params: dict[str, str] | None = None) -> str:
    """What the disk holds now, kept."""
    require(x.db, "VDI", ref, "snapshot")
    return fork(x, ref, is_a_snapshot=True, snapshot_of=ref, snapshot_time=now())


@handler("VDI.copy")
def copy(x: Context, ref: str, sr: str = NULL, base_vdi: str = NULL, into_vdi: str = NULL) -> str:
    """A full copy on a storage, or into a disk that is there."""
    require(x.db, "VDI", ref, "copy")
    if base_vdi != NULL:
        x.db.get("VDI", base_vdi)
    if into_vdi == NULL:
        require_plugged(x, sr)
        return duplicate(x, ref, sr)
    require(x.db, "VDI", into_vdi, "resize")
    old, new = x.db.get("VDI", ref), x.db.get("VDI", into_vdi)
    if new["virtual_size"] < old["virtual_size"]:
        raise ApiError("VDI_TOO_SMALL", into_vdi, str(old["virtual_size"]))
    x.disks.copy(old["uuid"], new["uuid"])
    x.disks.create(new["uuid"], new["virtual_size"])
    measure(x, new["SR"])
    return into_vdi


@handler("VDI.resize")
def resize(x: Context, ref: str, size: int) -> None:
    """Make a disk larger."""
    require(x.db, "VDI", ref, "resize")
    vdi = x.db.get("VDI", ref)
    if size < vdi["virtual_size"]:
        raise ApiError("SR_BACKEND_FAILURE_79", "", "VDI Invalid size [opterr=shrinking not allowed]", "")
    kind = x.db.get("SR", vdi["SR"])["type"]
    grown = rounded(size, kind)
    require_room(x, vdi["SR"], grown - vdi["virtual_size"] if kind.startswith("lvm") else 0)
    x.disks.create(vdi["uuid"], grown)
    x.db.update("VDI", ref, virtual_size=grown)
    measure(x, vdi["SR"])


@handler("VDI.forget")
def forget(x: Context, ref: str) -> None:
    """Drop the record and keep the disk."""
    require(x.db, "VDI", ref, "copy")
    for vbd in list(x.db.get("VDI", ref)["VBDs"]):
        x.db.destroy("VBD", vbd)
    x.db.destroy("VDI", ref)


@handler("VDI.introduce")
def introduce(x: Context, *arguments: Any) -> str:
    """A record for a disk that is there."""
    message = x.db.model.classes["VDI"].messages["introduce"]
    values = dict(zip((name for name, _ in message.arguments), arguments, strict=True))
    require_plugged(x, values["SR"])
    if not x.disks.path(values["uuid"]).exists():
        raise ApiError("VDI_MISSING", values["SR"], values["location"])
    if x.db.find("VDI", uuid=values["uuid"]):
        raise ApiError("LOCATION_NOT_UNIQUE", values["SR"], values["location"])
    return x.db.create("VDI", values)


@handler("VDI.pool_migrate")
def pool_migrate(x: Context, ref: str, sr: str, _options: dict[str, str]) -> str:
    """Move the disk of a running VM to another storage."""
    vdi = x.db.get("VDI", ref)
    running = [vbd for vbd in vdi["VBDs"] if x.db.get("VBD", vbd)["currently_attached"]]
    if not running:
        raise ApiError("VDI_NEEDS_VM_FOR_MIGRATE", ref)
    return move(x, ref, sr)


def move(x: Context, ref: str, sr: str) -> str:
    """Put a disk onto another storage; it gets a new reference, which its VBDs follow."""
    if x.db.get("VDI", ref)["SR"] == sr:
        return ref
    new = duplicate(x, ref, sr)
    for vbd in list(x.db.get("VDI", ref)["VBDs"]):
        x.db.update("VBD", vbd, VDI=new)
    remove(x, ref)
    return new


@handler("VDI.set_name_label")
def set_name_label(x: Context, ref: str, value: str) -> None:
    """Name it."""
    x.db.update("VDI", ref, name_label=value)


@handler("VDI.set_name_description")
def set_name_description(x: Context, ref: str, value: str) -> None:
    """Describe it."""
    x.db.update("VDI", ref, name_description=value)


@handler("VDI.set_sharable")
def set_sharable(x: Context, ref: str, value: bool) -> None:
    """Allow several VMs to write to it."""
    x.db.update("VDI", ref, sharable=value)


@handler("VDI.set_read_only")
def set_read_only(x: Context, ref: str, value: bool) -> None:
    """Allow only reading."""
    x.db.update("VDI", ref, read_only=value)
