"""What may be done to a VM, VBD, VIF or VDI now: xapi's rules, as checks and as allowed_operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.fakes.xenapi.database import Database, Record
from tests.fakes.xenapi.errors import NULL, ApiError, bad_power_state, busy

HALTED, RUNNING, PAUSED, SUSPENDED = "Halted", "Running", "Paused", "Suspended"
EVERY = [HALTED, PAUSED, SUSPENDED, RUNNING]
LIVE = [PAUSED, SUSPENDED, RUNNING]

POWER_STATES = {
    "changing_memory_limits": [HALTED], "changing_static_range": [HALTED], "changing_VCPUs": [HALTED],
    "make_into_template": [HALTED], "provision": [HALTED], "start": [HALTED], "start_on": [HALTED],
    "unpause": [PAUSED], "resume": [SUSPENDED], "resume_on": [SUSPENDED], "clean_reboot": [RUNNING],
    "clean_shutdown": [RUNNING], "changing_VCPUs_live": [RUNNING], "data_source_op": [RUNNING], "pause": [RUNNING],
    "pool_migrate": [RUNNING], "suspend": [RUNNING], "changing_dynamic_range": [HALTED, RUNNING],
    "migrate_send": [HALTED, SUSPENDED, RUNNING], "clone": [HALTED], "copy": [HALTED, SUSPENDED],
    "destroy": [HALTED, SUSPENDED], "export": [HALTED, SUSPENDED], "hard_reboot": [PAUSED, RUNNING],
    "hard_shutdown": LIVE, "checkpoint": LIVE, "snapshot": EVERY, "revert": EVERY, "power_state_reset": EVERY,
    "call_plugin": [RUNNING],
}  # fmt: skip
OF_TEMPLATES = {"changing_dynamic_range", "changing_static_range", "changing_memory_limits", "changing_VCPUs", "clone",
                "copy", "export", "provision", "destroy"}  # fmt: skip
OF_SNAPSHOTS = {"revert", "clone", "copy", "export", "destroy", "hard_shutdown"}
OF_CONTROL_DOMAINS = {"data_source_op", "changing_dynamic_range"}
NEEDS_TOOLS = {"clean_shutdown", "clean_reboot", "suspend", "pool_migrate", "changing_VCPUs_live"}


def has_tools(db: Database, vm: Record) -> bool:
    """Whether PV drivers report from the guest."""
    metrics = vm["guest_metrics"]
    return db.has("VM_guest_metrics", metrics) and bool(db.get("VM_guest_metrics", metrics)["PV_drivers_detected"])


def vm_errors(db: Database, ref: str, operation: str) -> Iterator[ApiError]:
    """Why an operation is not valid on a VM, the reason that xapi names first coming first."""
    vm = db.get("VM", ref)
    if operation in vm["blocked_operations"]:
        yield ApiError("OPERATION_BLOCKED", ref, vm["blocked_operations"][operation])
    if vm["power_state"] not in POWER_STATES[operation]:
        yield bad_power_state(ref, POWER_STATES[operation], vm["power_state"])
    if vm["current_operations"]:
        yield busy("VM", ref, next(iter(vm["current_operations"].values())))
    if vm["is_a_snapshot"]:
        if operation not in OF_SNAPSHOTS:
            yield ApiError("VM_IS_SNAPSHOT", ref, operation)
    elif vm["is_a_template"] and (operation not in OF_TEMPLATES or _keeps(vm, operation)):
        yield ApiError("VM_IS_TEMPLATE", ref, operation)
    yield from _vm_kind_errors(db, ref, vm, operation)


def _keeps(vm: Record, operation: str) -> bool:
    """A template that came with the pool cannot be destroyed."""
    return operation == "destroy" and bool(vm["is_default_template"])


def _vm_kind_errors(db: Database, ref: str, vm: Record, operation: str) -> Iterator[ApiError]:
    if operation == "provision" and not vm["is_a_template"]:
        yield ApiError("PROVISION_ONLY_ALLOWED_ON_TEMPLATE")
    if operation == "revert" and not vm["is_a_snapshot"]:
        yield ApiError("REVERT_ONLY_ALLOWED_ON_SNAPSHOT")
    if vm["is_control_domain"] and operation not in OF_CONTROL_DOMAINS:
        yield ApiError("OPERATION_NOT_ALLOWED", "Operations on domain 0 are not allowed")
    if operation in NEEDS_TOOLS and not has_tools(db, vm):
        yield ApiError("VM_LACKS_FEATURE", ref)


def vbd_errors(db: Database, ref: str, operation: str) -> Iterator[ApiError]:
    """Why an operation is not valid on a VBD."""
    vbd = db.get("VBD", ref)
    if vbd["current_operations"]:
        yield busy("VBD", ref, next(iter(vbd["current_operations"].values())))
    if operation in {"unplug", "unplug_force"} and not vbd["unpluggable"]:
        yield ApiError("VBD_NOT_UNPLUGGABLE", ref)
    if operation in {"insert", "eject"}:
        yield from _media_errors(db, ref, vbd, operation)
    if operation in {"plug", "unplug", "unplug_force"}:
        yield from _plug_errors(db, ref, vbd, operation)
        if vbd["type"] == "CD" and db.get("VM", vbd["VM"])["power_state"] == RUNNING:
            reason = "HVM CDROMs cannot be hotplugged/unplugged, only inserted or ejected"
            yield ApiError("OPERATION_NOT_ALLOWED", reason)
    if operation in {"plug", "attach", "insert"} and not vbd["empty"]:
        yield from _sharing_errors(db, ref, vbd)


def _media_errors(db: Database, ref: str, vbd: Record, operation: str) -> Iterator[ApiError]:
    if vbd["type"] != "CD":
        yield ApiError("VBD_NOT_REMOVABLE_MEDIA", ref)
    if vbd["empty"] and operation == "eject":
        yield ApiError("VBD_IS_EMPTY", ref)
    if not vbd["empty"] and operation == "insert":
        yield ApiError("VBD_NOT_EMPTY", ref)
    if db.get("VM", vbd["VM"])["power_state"] == SUSPENDED:
        yield bad_power_state(vbd["VM"], [HALTED, RUNNING], SUSPENDED)


def _plug_errors(db: Database, ref: str, device: Record, operation: str) -> Iterator[ApiError]:
    """For VBDs and VIFs: the VM must run, the device be out (or in), and the guest have drivers."""
    vm = db.get("VM", device["VM"])
    if vm["power_state"] != RUNNING:
        yield bad_power_state(device["VM"], [RUNNING], vm["power_state"])
    elif operation == "plug" and device["currently_attached"]:
        yield ApiError("DEVICE_ALREADY_ATTACHED", ref)
    elif operation != "plug" and not device["currently_attached"]:
        yield ApiError("DEVICE_ALREADY_DETACHED", ref)
    busy_with = set(vm["current_operations"].values()) & {"clean_shutdown", "hard_shutdown", "suspend", "pause"}
    if busy_with:
        yield ApiError("OPERATION_NOT_ALLOWED", f"Current operation on VM:{device['VM']} is {min(busy_with)}")
    if vm["power_state"] == RUNNING and not has_tools(db, vm):
        yield ApiError("VM_MISSING_PV_DRIVERS", device["VM"])


def _sharing_errors(db: Database, ref: str, vbd: Record) -> Iterator[ApiError]:
    vdi = db.get("VDI", vbd["VDI"])
    if not vdi["managed"]:
        yield ApiError("VDI_NOT_MANAGED", vbd["VDI"])
    if vdi["current_operations"]:
        yield busy("VDI", vbd["VDI"], next(iter(vdi["current_operations"].values())))
    others = [one for other in vdi["VBDs"] if other != ref and (one := db.get("VBD", other))["currently_attached"]]
    others = [one for one in others if db.get("VM", one["VM"])["power_state"] != SUSPENDED]
    writers = [one for one in others if one["mode"] == "RW"]
    if not vdi["sharable"] and (writers or (vbd["mode"] == "RW" and others)):
        yield ApiError("VDI_IN_USE", vbd["VDI"])
    if vbd["mode"] == "RW" and vdi["read_only"]:
        yield ApiError("VDI_READONLY", vbd["VDI"])


def vif_errors(db: Database, ref: str, operation: str) -> Iterator[ApiError]:
    """Why an operation is not valid on a VIF."""
    vif = db.get("VIF", ref)
    if vif["current_operations"]:
        yield busy("VIF", ref, next(iter(vif["current_operations"].values())))
    if operation != "attach":
        yield from _plug_errors(db, ref, vif, operation)


def vdi_errors(db: Database, ref: str, operation: str) -> Iterator[ApiError]:
    """Why an operation is not valid on a VDI."""
    vdi = db.get("VDI", ref)
    sr = vdi["SR"]
    if vdi["current_operations"]:
        yield busy("VDI", ref, next(iter(vdi["current_operations"].values())))
    if not any(db.get("PBD", pbd)["currently_attached"] for pbd in db.get("SR", sr)["PBDs"]):
        yield ApiError("SR_HAS_NO_PBDS", sr)
    attached = any(db.get("VBD", vbd)["currently_attached"] for vbd in vdi["VBDs"])
    if attached and operation not in {"snapshot", "clone", "mirror"}:
        yield ApiError("VDI_IN_USE", ref, operation)
    if operation == "snapshot" and vdi["sharable"]:
        yield ApiError("VDI_IS_SHARABLE", ref)
    if not vdi["managed"] and operation in {"snapshot", "clone", "resize", "destroy"}:
        yield ApiError("VDI_NOT_MANAGED", ref)
    if db.get("SR", sr)["type"] in {"iso", "iscsi"} and operation in {"snapshot", "clone", "resize", "destroy"}:
        yield ApiError("SR_OPERATION_NOT_SUPPORTED", sr)


Errors = Callable[[Database, str, str], Iterator[ApiError]]
ERRORS: dict[str, tuple[Errors, tuple[str, ...]]] = {
    "VM": (vm_errors, tuple(sorted(POWER_STATES))),
    "VBD": (vbd_errors, ("attach", "eject", "insert", "plug", "unplug", "unplug_force")),
    "VIF": (vif_errors, ("attach", "plug", "unplug")),
    "VDI": (vdi_errors, ("clone", "copy", "destroy", "resize", "snapshot")),
}


def require(db: Database, kind: str, ref: str, operation: str) -> None:
    """Raise the first reason why the operation is not valid now."""
    for error in ERRORS[kind][0](db, ref, operation):
        raise error


def refresh(db: Database) -> None:
    """Bring allowed_operations up to date, of what was touched and of what hangs on it."""
    todo = set(db.touched)
    db.touched.clear()
    for kind, ref in list(todo):
        if kind == "VM" and db.has("VM", ref):
            vm = db.get("VM", ref)
            todo |= {("VBD", vbd) for vbd in vm["VBDs"]} | {("VIF", vif) for vif in vm["VIFs"]}
        if kind == "VBD" and db.has("VBD", ref) and db.get("VBD", ref)["VDI"] != NULL:
            todo.add(("VDI", db.get("VBD", ref)["VDI"]))
        if kind == "VM_guest_metrics":
            todo |= {("VM", vm) for vm in db.find("VM", guest_metrics=ref)}
    for kind, ref in todo:
        if kind in ERRORS and db.has(kind, ref):
            errors, operations = ERRORS[kind]
            allowed = [one for one in operations if next(errors(db, ref, one), None) is None]
            db.update(kind, ref, allowed_operations=allowed)
    db.touched.clear()
