"""VMs: made, cloned, snapshotted, changed and destroyed."""

from __future__ import annotations

import uuid
from typing import Any

from tests.fakes.xenapi.database import Record, now
from tests.fakes.xenapi.devices import create_vif, generated_mac
from tests.fakes.xenapi.errors import NULL, ApiError
from tests.fakes.xenapi.lifecycle import HALTED, RUNNING, SUSPENDED, require
from tests.fakes.xenapi.registry import Context, handler
from tests.fakes.xenapi.storage import duplicate, fork, remove, require_plugged

ORDER = "Memory limits must satisfy: static_min <= dynamic_min <= dynamic_max <= static_max"
_OF_CLONES = {"is_default_template": False, "power_state": HALTED, "resident_on": NULL, "guest_metrics": NULL,
              "scheduled_to_be_resident_on": NULL, "suspend_VDI": NULL, "domid": -1, "blocked_operations": {},
              "current_operations": {}, "is_a_snapshot": False, "snapshot_of": NULL, "uuid": ""}  # fmt: skip
_NOT_COPIED = ("VBDs", "VIFs", "consoles", "snapshots", "children", "allowed_operations", "metrics", "crash_dumps")


def require_memory_order(static_min: int, static_max: int, dynamic_min: int, dynamic_max: int) -> None:
    """MEMORY_CONSTRAINT_VIOLATION unless the limits are in order."""
    if not static_min <= dynamic_min <= dynamic_max <= static_max:
        raise ApiError("MEMORY_CONSTRAINT_VIOLATION", ORDER)


def require_vcpus(at_startup: int, most: int) -> None:
    """INVALID_VALUE unless there are some, and not more than may be."""
    if not 0 < at_startup <= most:
        raise ApiError("INVALID_VALUE", "VCPU values must satisfy: 0 < VCPUs_at_startup <= VCPUs_max",
                       f"{at_startup}, {most}")  # fmt: skip


def new_metrics(x: Context, **values: Any) -> str:
    """Metrics of a VM that does not run."""
    return x.db.create("VM_metrics", {"last_updated": now(), "install_time": now()} | values)


@handler("VM.create")
def create(x: Context, args: Record) -> str:
    """A VM without disks and interfaces."""
    limits = [args[f"memory_{name}"] for name in ("static_min", "static_max", "dynamic_min", "dynamic_max")]
    require_memory_order(*limits)
    require_vcpus(args["VCPUs_at_startup"], args["VCPUs_max"])
    if args["affinity"] != NULL:
        x.db.get("host", args["affinity"])
    if args["power_state"] != HALTED:
        raise ApiError("VALUE_NOT_SUPPORTED", "VM.power_state", args["power_state"], "only Halted is simulated")
    kind = args["domain_type"]
    if kind == "unspecified":
        kind = "hvm" if args["HVM_boot_policy"] else "pv"
    seed = {"mac_seed": str(uuid.uuid4())}
    forced = {"blocked_operations": {}, "domain_type": kind, "other_config": seed | args["other_config"], "domid": -1,
              "metrics": new_metrics(x), "resident_on": NULL}  # fmt: skip
    return x.db.create("VM", args | forced)


def _copy_record(x: Context, ref: str, **values: Any) -> str:
    vm = {name: value for name, value in x.db.get("VM", ref).items() if name not in _NOT_COPIED}
    return x.db.create("VM", vm | _OF_CLONES | {"metrics": new_metrics(x)} | values)


def _copy_devices(x: Context, ref: str, new: str, *, keep_macs: bool, sr: str = "", **vdi: Any) -> None:
    seed = x.db.get("VM", new)["other_config"].get("mac_seed", "")
    for old in list(x.db.get("VM", ref)["VBDs"]):
        vbd = dict(x.db.get("VBD", old))
        if vbd["type"] == "Disk":
            facts = vdi | ({"snapshot_of": vbd["VDI"]} if vdi else {})
            vbd["VDI"] = duplicate(x, vbd["VDI"], sr) if sr else fork(x, vbd["VDI"], **facts)
        x.db.create("VBD", vbd | {"VM": new, "uuid": "", "currently_attached": False, "device": "",
                                  "current_operations": {}, "allowed_operations": []})  # fmt: skip
    for old in list(x.db.get("VM", ref)["VIFs"]):
        vif = dict(x.db.get("VIF", old))
        mac = vif["MAC"] if keep_macs else generated_mac(seed, vif["device"])
        x.db.create("VIF", vif | {"VM": new, "uuid": "", "currently_attached": False, "MAC": mac,
                                  "current_operations": {}, "allowed_operations": []})  # fmt: skip


def _erase(x: Context, ref: str) -> None:
    """Undo a copy that was not finished."""
    for vbd in list(x.db.get("VM", ref)["VBDs"]):
        record = x.db.get("VBD", vbd)
        if record["type"] == "Disk":
            remove(x, record["VDI"])
    _drop(x, ref)


def _copy(x: Context, ref: str, *, keep_macs: bool = False, sr: str = "", vdi: dict[str, Any] | None = None,
          **values: Any) -> str:  # fmt: skip
    new = _copy_record(x, ref, **values)
    try:
        _copy_devices(x, ref, new, keep_macs=keep_macs, sr=sr, **(vdi or {}))
    except ApiError:
        _erase(x, new)
        raise
    return new


def _config_of_clone(x: Context, ref: str) -> dict[str, str]:
    kept = {key: value for key, value in x.db.get("VM", ref)["other_config"].items() if key != "default_template"}
    return kept | {"mac_seed": str(uuid.uuid4())}


@handler("VM.clone")
def clone(x: Context, ref: str, name: str) -> str:
    """A second VM, its disks copies on write."""
    require(x.db, "VM", ref, "clone")
    template = x.db.get("VM", ref)["is_a_template"]
    return _copy(x, ref, name_label=name, other_config=_config_of_clone(x, ref), is_a_template=template)


@handler("VM.copy")
def copy(x: Context, ref: str, name: str, sr: str) -> str:
    """A second VM, its disks full copies."""
    require(x.db, "VM", ref, "copy")
    if sr != NULL:
        require_plugged(x, sr)
    sr = sr if sr != NULL else _first_sr(x, ref)
    return _copy(x, ref, name_label=name, other_config=_config_of_clone(x, ref), sr=sr)


def _first_sr(x: Context, ref: str) -> str:
    disks = [vbd for one in x.db.get("VM", ref)["VBDs"] if (vbd := x.db.get("VBD", one))["type"] == "Disk"]
    return str(x.db.get("VDI", disks[0]["VDI"])["SR"]) if disks else ""


@handler("VM.snapshot")
def snapshot(x: Context, ref: str, name: str, ignored: list[str] | None = None) -> str:
    """A template that holds what the VM's disks hold now."""
    require(x.db, "VM", ref, "snapshot")
    if ignored:
        raise ApiError("NOT_IMPLEMENTED", "VM.snapshot with ignore_vdis")
    moment = now()
    of_disks = {"is_a_snapshot": True, "snapshot_time": moment}
    return _copy(x, ref, keep_macs=True, vdi=of_disks, name_label=name, is_a_template=True, is_a_snapshot=True,
                 snapshot_of=ref, snapshot_time=moment)  # fmt: skip


@handler("VM.provision")
def provision(x: Context, ref: str) -> None:
    """Make a VM of the clone of a template."""
    require(x.db, "VM", ref, "provision")
    x.db.update("VM", ref, is_a_template=False)


@handler("VM.set_is_a_template")
def set_is_a_template(x: Context, ref: str, value: bool) -> None:
    """Make a VM a template, or the other way round."""
    if value:
        require(x.db, "VM", ref, "make_into_template")
    elif x.db.get("VM", ref)["is_a_snapshot"]:
        raise ApiError("VM_IS_SNAPSHOT", ref, "make_into_template")
    x.db.update("VM", ref, is_a_template=value)


@handler("VM.destroy")
def destroy(x: Context, ref: str) -> None:
    """Remove a VM that is off; its disks stay."""
    if x.db.get("VM", ref)["is_default_template"]:
        raise ApiError("VM_CANNOT_DELETE_DEFAULT_TEMPLATE", ref)
    require(x.db, "VM", ref, "destroy")
    if x.db.get("VM", ref)["power_state"] == SUSPENDED and x.db.has("VDI", x.db.get("VM", ref)["suspend_VDI"]):
        remove(x, x.db.get("VM", ref)["suspend_VDI"])
    _drop(x, ref)


def _drop(x: Context, ref: str) -> None:
    vm = x.db.get("VM", ref)
    for kind, members in (("VBD", "VBDs"), ("VIF", "VIFs"), ("console", "consoles")):
        for one in list(vm[members]):
            x.db.destroy(kind, one)
    for kind, member in (("VM_metrics", "metrics"), ("VM_guest_metrics", "guest_metrics")):
        if x.db.has(kind, vm[member]):
            x.db.destroy(kind, vm[member])
    x.pool.forget_guest(ref)
    x.db.destroy("VM", ref)


@handler("VM.set_memory_limits")
def set_memory_limits(x: Context, ref: str, static_min: int, static_max: int, low: int, high: int) -> None:
    """All four limits, in bytes, while the VM is off."""
    require(x.db, "VM", ref, "changing_memory_limits")
    require_memory_order(static_min, static_max, low, high)
    x.db.update("VM", ref, memory_static_min=static_min, memory_static_max=static_max, memory_dynamic_min=low,
                memory_dynamic_max=high)  # fmt: skip


@handler("VM.set_memory")
def set_memory(x: Context, ref: str, value: int) -> None:
    """All four limits at once."""
    set_memory_limits(x, ref, min(value, x.db.get("VM", ref)["memory_static_min"]), value, value, value)


@handler("VM.set_memory_dynamic_range")
def set_memory_dynamic_range(x: Context, ref: str, low: int, high: int) -> None:
    """How much the guest may be given, also while it runs."""
    require(x.db, "VM", ref, "changing_dynamic_range")
    vm = x.db.get("VM", ref)
    require_memory_order(vm["memory_static_min"], vm["memory_static_max"], low, high)
    x.db.update("VM", ref, memory_dynamic_min=low, memory_dynamic_max=high)


@handler("VM.set_VCPUs_max")
def set_vcpus_max(x: Context, ref: str, value: int) -> None:
    """How many there may be."""
    require(x.db, "VM", ref, "changing_VCPUs")
    require_vcpus(x.db.get("VM", ref)["VCPUs_at_startup"], value)
    x.db.update("VM", ref, VCPUs_max=value)


@handler("VM.set_VCPUs_at_startup")
def set_vcpus_at_startup(x: Context, ref: str, value: int) -> None:
    """How many there are when it starts."""
    require(x.db, "VM", ref, "changing_VCPUs")
    require_vcpus(value, x.db.get("VM", ref)["VCPUs_max"])
    x.db.update("VM", ref, VCPUs_at_startup=value)


@handler("VM.set_VCPUs_number_live")
def set_vcpus_number_live(x: Context, ref: str, value: int) -> None:
    """How many there are, while it runs."""
    require(x.db, "VM", ref, "changing_VCPUs_live")
    require_vcpus(value, x.db.get("VM", ref)["VCPUs_max"])
    x.db.update("VM_metrics", x.db.get("VM", ref)["metrics"], VCPUs_number=value)


@handler("VM.set_domain_type")
def set_domain_type(x: Context, ref: str, value: str) -> None:
    """hvm, pv or pvh; only while the VM is off."""
    require(x.db, "VM", ref, "changing_VCPUs")
    x.db.update("VM", ref, domain_type=value, HVM_boot_policy="BIOS order" if value == "hvm" else "")


@handler("VM.set_actions_after_crash")
def set_actions_after_crash(x: Context, ref: str, value: str) -> None:
    """What is done when the guest crashes."""
    x.db.update("VM", ref, actions_after_crash=value)


@handler("VM.set_has_vendor_device")
def set_has_vendor_device(x: Context, ref: str, value: bool) -> None:
    """Show the device that Windows Update finds drivers by."""
    require(x.db, "VM", ref, "changing_VCPUs")
    x.db.update("VM", ref, has_vendor_device=value)


@handler("VM.set_xenstore_data")
def set_xenstore_data(x: Context, ref: str, value: dict[str, str]) -> None:
    """What the guest finds in xenstore; a running guest sees the change."""
    if any(not key.startswith("vm-data") for key in value):
        wrong = next(key for key in value if not key.startswith("vm-data"))
        raise ApiError("INVALID_VALUE", "xenstore_data", wrong)
    x.db.update("VM", ref, xenstore_data=value)
    if x.db.get("VM", ref)["power_state"] == RUNNING:
        x.pool.guest(ref).seen = dict(value)


@handler("VM.call_plugin")
def call_plugin(x: Context, ref: str, plugin: str, function: str, _args: dict[str, str]) -> str:
    """There are no plugins."""
    require(x.db, "VM", ref, "call_plugin")
    raise ApiError("XENAPI_MISSING_PLUGIN", f"{plugin}.{function}")


def add_interface(x: Context, vm: str, network: str, device: str = "0") -> str:
    """An interface with defaults, for those who act behind the API's back."""
    fields = x.db.model.classes["VIF"].fields
    given = {"VM": vm, "network": network, "device": device, "MTU": 1500}
    return str(create_vif(x, {name: field.initial() for name, field in fields.items()} | given))
