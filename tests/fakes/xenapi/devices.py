"""VBDs and VIFs: plugged into VMs, running or not."""

from __future__ import annotations

import hashlib
import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from tests.fakes.xenapi.database import Record
from tests.fakes.xenapi.errors import NULL, ApiError, bad_power_state
from tests.fakes.xenapi.lifecycle import HALTED, RUNNING, SUSPENDED, require
from tests.fakes.xenapi.registry import Context, handler

MOST_VBDS = 16
MOST_VIFS = 7
_MAC = re.compile(r"([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}\Z")
_VBD_GIVEN = ("VM", "VDI", "userdevice", "bootable", "mode", "type", "unpluggable", "empty", "other_config",
              "qos_algorithm_type", "qos_algorithm_params")  # fmt: skip
_VIF_GIVEN = ("device", "network", "VM", "MTU", "other_config", "qos_algorithm_type", "qos_algorithm_params",
              "locking_mode", "ipv4_allowed", "ipv6_allowed")  # fmt: skip


@handler("VM.get_allowed_VBD_devices")
def get_allowed_vbd_devices(x: Context, vm: str) -> list[str]:
    """The numbers of disks that the VM may still have."""
    taken = {x.db.get("VBD", vbd)["userdevice"] for vbd in x.db.get("VM", vm)["VBDs"]}
    return [number for number in map(str, range(MOST_VBDS)) if number not in taken]


@handler("VM.get_allowed_VIF_devices")
def get_allowed_vif_devices(x: Context, vm: str) -> list[str]:
    """The numbers of interfaces that the VM may still have."""
    taken = {x.db.get("VIF", vif)["device"] for vif in x.db.get("VM", vm)["VIFs"]}
    return [number for number in map(str, range(MOST_VIFS)) if number not in taken]


@handler("VBD.create")
def create_vbd(x: Context, args: Record) -> str:
    """Describe how a VM sees a disk."""
    vm = x.db.get("VM", args["VM"])
    if not args["empty"]:
        _require_media(x, args)
    if args["type"] == "CD" and args["mode"] != "RO":
        raise ApiError("VBD_CDS_MUST_BE_READONLY")
    if args["type"] != "CD" and args["empty"]:
        raise ApiError("VBD_NOT_REMOVABLE_MEDIA", "in constructor")
    if {"pool_migrate", "migrate_send"} & set(vm["current_operations"].values()):
        raise ApiError("OTHER_OPERATION_IN_PROGRESS", "VM", args["VM"], "migrate_send")
    device = _userdevice(x, args)
    values = {name: args[name] for name in _VBD_GIVEN} | {"userdevice": device}
    return x.db.create("VBD", values | ({"VDI": NULL} if args["empty"] else {}))


def _require_media(x: Context, args: Record) -> None:
    vdi = x.db.get("VDI", args["VDI"])
    if vdi["type"] not in {"system", "user", "ephemeral", "suspend", "crashdump", "metadata"}:
        raise ApiError("VDI_INCOMPATIBLE_TYPE", args["VDI"], vdi["type"])
    if args["type"] == "CD":
        _require_iso(x, args["VDI"])
    if args["mode"] == "RW" and vdi["read_only"]:
        raise ApiError("VDI_READONLY", args["VDI"])


def _require_iso(x: Context, vdi: str) -> None:
    """A CD drive takes only what is on a storage for ISO images."""
    sr = x.db.get("SR", x.db.get("VDI", vdi)["SR"])
    if sr["content_type"] != "iso":
        raise ApiError("VDI_IS_NOT_ISO", vdi, sr["content_type"])


def _userdevice(x: Context, args: Record) -> str:
    wanted: str = args["userdevice"]
    free: list[str] = get_allowed_vbd_devices(x, args["VM"])
    if wanted == "autodetect" and free:
        return free[0]
    number = disk_number(wanted)
    if number is None or not 0 <= number < MOST_VBDS:
        raise ApiError("INVALID_DEVICE", wanted)
    if str(number) not in free:
        raise ApiError("DEVICE_ALREADY_EXISTS", wanted)
    return str(number)


def disk_number(device: str) -> int | None:
    """The number of a disk that is named by it, or like xvda, hda or sda."""
    if device.isdecimal():
        return int(device)
    named = re.fullmatch(r"(?:xvd|hd|sd)([a-p])", device)
    return ord(named[1]) - ord("a") if named else None


@handler("VBD.destroy")
def destroy_vbd(x: Context, ref: str) -> None:
    """Forget a VBD that is not plugged."""
    vbd = x.db.get("VBD", ref)
    if vbd["currently_attached"]:
        uuid = x.db.get("VM", vbd["VM"])["uuid"]
        raise ApiError("OPERATION_NOT_ALLOWED", f"VBD '{vbd['uuid']}' still attached to '{uuid}'")
    x.db.destroy("VBD", ref)


def attach_vbd(x: Context, ref: str) -> None:
    """Let the guest see the disk."""
    number = int(x.db.get("VBD", ref)["userdevice"])
    x.db.update("VBD", ref, currently_attached=True, device=f"xvd{chr(ord('a') + number)}")


def detach_vbd(x: Context, ref: str) -> None:
    """Take the disk away."""
    x.db.update("VBD", ref, currently_attached=False, device="")


@handler("VBD.plug")
def plug_vbd(x: Context, ref: str) -> None:
    """Plug a disk into a running VM."""
    require(x.db, "VBD", ref, "plug")
    vbd = x.db.get("VBD", ref)
    require_writable(x, ref)
    require_visible(x, vbd["VDI"], x.db.get("VM", vbd["VM"])["resident_on"], vbd["VM"])
    attach_vbd(x, ref)


def require_writable(x: Context, ref: str) -> None:
    """A guest without a kernel of Xen's has no read-only disks."""
    vbd = x.db.get("VBD", ref)
    if vbd["type"] == "Disk" and vbd["mode"] == "RO" and x.db.get("VM", vbd["VM"])["domain_type"] == "hvm":
        raise ApiError("DISK_VBD_MUST_BE_READWRITE_FOR_HVM", ref)


def require_visible(x: Context, vdi: str, host: str, vm: str) -> None:
    """VM_REQUIRES_SR unless the host has the disk's storage."""
    sr = x.db.get("VDI", vdi)["SR"]
    if not any((pbd := x.db.get("PBD", one))["host"] == host and pbd["currently_attached"]
               for one in x.db.get("SR", sr)["PBDs"]):  # fmt: skip
        raise ApiError("VM_REQUIRES_SR", vm, sr)


@handler("VBD.unplug")
def unplug_vbd(x: Context, ref: str) -> None:
    """Ask the guest to let go of a disk."""
    require(x.db, "VBD", ref, "unplug")
    if ref in x.pool.guest(x.db.get("VBD", ref)["VM"]).held:
        raise ApiError("DEVICE_DETACH_REJECTED", "VBD", ref, "device is in use")
    detach_vbd(x, ref)


@handler("VBD.unplug_force")
def unplug_force_vbd(x: Context, ref: str) -> None:
    """Take a disk away, whatever the guest says."""
    require(x.db, "VBD", ref, "unplug_force")
    detach_vbd(x, ref)


@handler("VBD.insert")
def insert(x: Context, ref: str, vdi: str) -> None:
    """Put a medium into a drive."""
    require(x.db, "VBD", ref, "insert")
    _require_iso(x, vdi)
    x.db.update("VBD", ref, VDI=vdi, empty=False)


@handler("VBD.eject")
def eject(x: Context, ref: str) -> None:
    """Take the medium out of a drive."""
    require(x.db, "VBD", ref, "eject")
    x.db.update("VBD", ref, VDI=NULL, empty=True)


@handler("VBD.set_mode")
def set_mode(x: Context, ref: str, value: str) -> None:
    """Allow writing, or not; only while the VM is off."""
    vm = x.db.get("VBD", ref)["VM"]
    if x.db.get("VM", vm)["power_state"] != HALTED:
        raise bad_power_state(vm, [HALTED], x.db.get("VM", vm)["power_state"])
    x.db.update("VBD", ref, mode=value)


@handler("VBD.assert_attachable")
def assert_attachable(x: Context, ref: str) -> None:
    """Say why it cannot be attached."""
    require(x.db, "VBD", ref, "attach")


@handler("VIF.create")
def create_vif(x: Context, args: Record) -> str:
    """Describe an interface of a VM."""
    vm = x.db.get("VM", args["VM"])
    x.db.get("network", args["network"])
    if not args["device"].isdecimal():
        raise ApiError("INVALID_DEVICE", args["device"])
    mac = args["MAC"]
    if mac == "" and "mac_seed" in vm["other_config"]:
        mac = generated_mac(vm["other_config"]["mac_seed"], args["device"])
    if not _MAC.match(mac):
        raise ApiError("MAC_INVALID", mac)
    if args["device"] in {x.db.get("VIF", vif)["device"] for vif in vm["VIFs"]}:
        raise ApiError("DEVICE_ALREADY_EXISTS", args["device"])
    values = {name: args[name] for name in _VIF_GIVEN}
    return x.db.create("VIF", values | {"MAC": mac, "MAC_autogenerated": args["MAC"] == ""})


def generated_mac(seed: str, device: str) -> str:
    """The address of an interface that was given none."""
    digest = hashlib.sha256(f"{seed}/{device}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (digest[0] & 0xFE | 2, *digest[1:6]))


@handler("VIF.destroy")
def destroy_vif(x: Context, ref: str) -> None:
    """Forget an interface that is not plugged."""
    vif = x.db.get("VIF", ref)
    if vif["currently_attached"] and x.db.get("VM", vif["VM"])["power_state"] == RUNNING:
        raise ApiError("OPERATION_NOT_ALLOWED", "VIF currently attached to a running VM")
    x.db.destroy("VIF", ref)


@handler("VIF.plug")
def plug_vif(x: Context, ref: str) -> None:
    """Plug an interface into a running VM."""
    require(x.db, "VIF", ref, "plug")
    x.db.update("VIF", ref, currently_attached=True)


@handler("VIF.unplug")
def unplug_vif(x: Context, ref: str) -> None:
    """Unplug it."""
    require(x.db, "VIF", ref, "unplug")
    if ref in x.pool.guest(x.db.get("VIF", ref)["VM"]).held:
        raise ApiError("DEVICE_DETACH_REJECTED", "VIF", ref, "device is in use")
    x.db.update("VIF", ref, currently_attached=False)


@handler("VIF.unplug_force")
def unplug_force_vif(x: Context, ref: str) -> None:
    """Take it away, whatever the guest says."""
    require(x.db, "VIF", ref, "unplug")
    x.db.update("VIF", ref, currently_attached=False)


@handler("VIF.move")
def move_vif(x: Context, ref: str, network: str) -> None:
    """Join another network."""
    x.db.get("network", network)
    if x.db.get("VM", x.db.get("VIF", ref)["VM"])["power_state"] == SUSPENDED:
        raise bad_power_state(x.db.get("VIF", ref)["VM"], [HALTED, RUNNING], SUSPENDED)
    x.db.update("VIF", ref, network=network)


@handler("VIF.set_locking_mode")
def set_locking_mode(x: Context, ref: str, value: str) -> None:
    """What may pass: all, the interface's own addresses only, or nothing."""
    x.db.update("VIF", ref, locking_mode=value)


def _is(family: type[IPv4Address] | type[IPv6Address], field: str, values: list[str]) -> list[str]:
    for value in values:
        try:
            family(value)
        except AddressValueError as exc:
            raise ApiError("INVALID_VALUE", field, value) from exc
    return list(dict.fromkeys(values))


@handler("VIF.set_ipv4_allowed")
def set_ipv4_allowed(x: Context, ref: str, value: list[str]) -> None:
    """The addresses that a locked interface may use."""
    x.db.update("VIF", ref, ipv4_allowed=_is(IPv4Address, "ipv4_allowed", value))


@handler("VIF.set_ipv6_allowed")
def set_ipv6_allowed(x: Context, ref: str, value: list[str]) -> None:
    """The addresses that a locked interface may use."""
    x.db.update("VIF", ref, ipv6_allowed=_is(IPv6Address, "ipv6_allowed", value))


@handler("VIF.add_ipv4_allowed")
def add_ipv4_allowed(x: Context, ref: str, value: str) -> None:
    """One more."""
    set_ipv4_allowed(x, ref, [*x.db.get("VIF", ref)["ipv4_allowed"], value])


@handler("VIF.add_ipv6_allowed")
def add_ipv6_allowed(x: Context, ref: str, value: str) -> None:
    """One more."""
    set_ipv6_allowed(x, ref, [*x.db.get("VIF", ref)["ipv6_allowed"], value])


@handler("VIF.remove_ipv4_allowed")
def remove_ipv4_allowed(x: Context, ref: str, value: str) -> None:
    """One less."""
    set_ipv4_allowed(x, ref, [one for one in x.db.get("VIF", ref)["ipv4_allowed"] if one != value])


@handler("VIF.remove_ipv6_allowed")
def remove_ipv6_allowed(x: Context, ref: str, value: str) -> None:
    """One less."""
    set_ipv6_allowed(x, ref, [one for one in x.db.get("VIF", ref)["ipv6_allowed"] if one != value])
