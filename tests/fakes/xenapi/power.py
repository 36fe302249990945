"""VMs started, stopped, frozen and saved."""

from __future__ import annotations

from typing import Any

from tests.fakes.xenapi.database import now
from tests.fakes.xenapi.devices import attach_vbd, detach_vbd, require_visible, require_writable
from tests.fakes.xenapi.errors import NULL, ApiError
from tests.fakes.xenapi.lifecycle import HALTED, PAUSED, RUNNING, SUSPENDED, require
from tests.fakes.xenapi.machines import new_metrics
from tests.fakes.xenapi.registry import Context, handler
from tests.fakes.xenapi.storage import add, is_plugged, remove, require_room

DOM0_MEMORY = 1 << 30


def free_memory(x: Context, host: str) -> int:
    """Bytes that no guest on the host has."""
    record = x.db.get("host", host)
    vms = [x.db.get("VM", vm) for vm in record["resident_VMs"]]
    used = sum(vm["memory_dynamic_max"] for vm in vms if not vm["is_control_domain"])
    return int(x.db.get("host_metrics", record["metrics"])["memory_total"] - DOM0_MEMORY - used)


@handler("host.compute_free_memory")
def compute_free_memory(x: Context, host: str) -> int:
    """Bytes that a new guest could have."""
    return free_memory(x, host)


@handler("VM.assert_can_boot_here")
def assert_can_boot_here(x: Context, ref: str, host: str) -> None:
    """Say why the VM cannot run on the host."""
    vm, there = x.db.get("VM", ref), x.db.get("host", host)
    if not there["enabled"]:
        raise ApiError("HOST_DISABLED", host)
    if not x.db.get("host_metrics", there["metrics"])["live"]:
        raise ApiError("HOST_NOT_LIVE")
    for vdi in _required_disks(x, ref):
        require_visible(x, vdi, host, ref)
    for vif in map(x.db.all("VIF").__getitem__, vm["VIFs"]):
        pifs = [x.db.get("PIF", pif)["host"] for pif in x.db.get("network", vif["network"])["PIFs"]]
        if pifs and host not in pifs:
            raise ApiError("VM_REQUIRES_NETWORK", ref, vif["network"])
    if vm["resident_on"] != host and vm["memory_dynamic_max"] > free_memory(x, host):
        raise ApiError("HOST_NOT_ENOUGH_FREE_MEMORY", str(vm["memory_dynamic_max"]), str(free_memory(x, host)))


def _required_disks(x: Context, ref: str) -> list[str]:
    vm = x.db.get("VM", ref)
    vbds = [x.db.get("VBD", vbd) for vbd in vm["VBDs"]]
    saved = [vm["suspend_VDI"]] if x.db.has("VDI", vm["suspend_VDI"]) else []
    return [vbd["VDI"] for vbd in vbds if not vbd["empty"]] + saved


@handler("VM.get_possible_hosts")
def get_possible_hosts(x: Context, ref: str) -> list[str]:
    """The hosts that the VM can run on."""
    return [host for host in x.db.all("host") if _can_boot(x, ref, host)]


def _can_boot(x: Context, ref: str, host: str) -> bool:
    try:
        assert_can_boot_here(x, ref, host)
    except ApiError:
        return False
    return True


def _choose_host(x: Context, ref: str) -> str:
    possible: list[str] = get_possible_hosts(x, ref)
    if not possible:
        raise ApiError("NO_HOSTS_AVAILABLE")
    affinity: str = x.db.get("VM", ref)["affinity"]
    return affinity if affinity in possible else possible[0]


@handler("VM.start")
def start(x: Context, ref: str, paused: bool, _force: bool) -> None:
    """Start it where it can run."""
    require(x.db, "VM", ref, "start")
    _boot(x, ref, _choose_host(x, ref), paused=paused)


@handler("VM.start_on")
def start_on(x: Context, ref: str, host: str, paused: bool, _force: bool) -> None:
    """Start it on this host."""
    require(x.db, "VM", ref, "start_on")
    assert_can_boot_here(x, ref, host)
    _boot(x, ref, host, paused=paused)


def _boot(x: Context, ref: str, host: str, *, paused: bool) -> None:
    vm = x.db.get("VM", ref)
    for vbd in vm["VBDs"]:
        require_writable(x, vbd)
        require(x.db, "VBD", vbd, "attach")
    settle_on(x, ref, host)
    x.db.update("VM", ref, power_state=PAUSED if paused else RUNNING)
    for vbd in list(vm["VBDs"]):
        attach_vbd(x, vbd)
    x.pool.guest(ref).boot()
    fresh_metrics(x, ref)


def settle_on(x: Context, ref: str, host: str) -> None:
    """Have a domain for the VM on a host, with consoles there."""
    vm = x.db.get("VM", ref)
    x.db.update("VM", ref, resident_on=host, domid=x.pool.next_domid())
    for console in list(vm["consoles"]):
        x.db.destroy("console", console)
    for protocol in ("rfb", "vt100"):
        console = x.db.create("console", {"protocol": protocol, "VM": ref})
        uuid, url = x.db.get("console", console)["uuid"], x.pool.host_of(host).url
        x.db.update("console", console, location=f"{url}/console?uuid={uuid}")
    for vif in list(vm["VIFs"]):
        x.db.update("VIF", vif, currently_attached=True)


def fresh_metrics(x: Context, ref: str) -> None:
    """What is counted from the start of a guest."""
    vm = x.db.get("VM", ref)
    facts: dict[str, Any] = {
        "memory_actual": vm["memory_dynamic_max"], "VCPUs_number": vm["VCPUs_at_startup"], "start_time": now(),
        "last_updated": now(), "hvm": vm["domain_type"] == "hvm", "current_domain_type": vm["domain_type"],
    }  # fmt: skip
    if not x.db.has("VM_metrics", vm["metrics"]):
        x.db.update("VM", ref, metrics=new_metrics(x))
    x.db.update("VM_metrics", x.db.get("VM", ref)["metrics"], **facts)


def stop(x: Context, ref: str) -> None:
    """Leave no domain of the VM."""
    vm = x.db.get("VM", ref)
    for vbd in list(vm["VBDs"]):
        detach_vbd(x, vbd)
    for vif in list(vm["VIFs"]):
        x.db.update("VIF", vif, currently_attached=False)
    for console in list(vm["consoles"]):
        x.db.destroy("console", console)
    _drop_guest_metrics(x, ref)
    if x.db.has("VDI", vm["suspend_VDI"]):
        remove(x, vm["suspend_VDI"])
    x.db.update("VM", ref, power_state=HALTED, resident_on=NULL, domid=-1, suspend_VDI=NULL)
    x.db.update("VM_metrics", vm["metrics"], VCPUs_number=0, memory_actual=0, current_domain_type="unspecified")
    x.pool.guest(ref).off()


def _drop_guest_metrics(x: Context, ref: str) -> None:
    metrics = x.db.get("VM", ref)["guest_metrics"]
    if x.db.has("VM_guest_metrics", metrics):
        x.db.destroy("VM_guest_metrics", metrics)
    x.db.update("VM", ref, guest_metrics=NULL)


def _require_obedience(x: Context, ref: str) -> None:
    if x.pool.guest(ref).deaf:
        raise ApiError("VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT", ref)


@handler("VM.clean_shutdown")
def clean_shutdown(x: Context, ref: str) -> None:
    """Ask the guest to end."""
    require(x.db, "VM", ref, "clean_shutdown")
    _require_obedience(x, ref)
    stop(x, ref)


@handler("VM.hard_shutdown")
def hard_shutdown(x: Context, ref: str) -> None:
    """Pull the plug."""
    require(x.db, "VM", ref, "hard_shutdown")
    stop(x, ref)


@handler("VM.shutdown")
def shutdown(x: Context, ref: str) -> None:
    """Ask, and pull the plug when it does not obey."""
    require(x.db, "VM", ref, "hard_shutdown")
    stop(x, ref)


@handler("VM.clean_reboot")
def clean_reboot(x: Context, ref: str) -> None:
    """Ask the guest to start anew."""
    require(x.db, "VM", ref, "clean_reboot")
    _require_obedience(x, ref)
    restart(x, ref)


@handler("VM.hard_reboot")
def hard_reboot(x: Context, ref: str) -> None:
    """Pull the plug and put it back."""
    require(x.db, "VM", ref, "hard_reboot")
    restart(x, ref)


def restart(x: Context, ref: str) -> None:
    """A new domain on the same host."""
    host = x.db.get("VM", ref)["resident_on"]
    _drop_guest_metrics(x, ref)
    settle_on(x, ref, host)
    for vbd in list(x.db.get("VM", ref)["VBDs"]):
        attach_vbd(x, vbd)
    x.db.update("VM", ref, power_state=RUNNING)
    x.pool.guest(ref).boot()
    fresh_metrics(x, ref)


@handler("VM.pause")
def pause(x: Context, ref: str) -> None:
    """Stop its CPUs."""
    require(x.db, "VM", ref, "pause")
    x.db.update("VM", ref, power_state=PAUSED)


@handler("VM.unpause")
def unpause(x: Context, ref: str) -> None:
    """Let its CPUs go on."""
    require(x.db, "VM", ref, "unpause")
    x.db.update("VM", ref, power_state=RUNNING)


@handler("VM.suspend")
def suspend(x: Context, ref: str) -> None:
    """Save its memory on the storage for it, and stop it."""
    require(x.db, "VM", ref, "suspend")
    vm = x.db.get("VM", ref)
    sr = _suspend_sr(x, ref)
    require_room(x, sr, vm["memory_dynamic_max"])
    vdi = add(x, sr, vm["memory_dynamic_max"], type="suspend", name_label="Suspend image")
    for console in list(vm["consoles"]):
        x.db.destroy("console", console)
    x.db.update("VM", ref, suspend_VDI=vdi, power_state=SUSPENDED, resident_on=NULL, domid=-1)


def _suspend_sr(x: Context, ref: str) -> str:
    vm, pool = x.db.get("VM", ref), next(iter(x.db.all("pool").values()))
    wanted = [vm["suspend_SR"], x.db.get("host", vm["resident_on"])["suspend_image_sr"], pool["suspend_image_SR"]]
    for sr in [*wanted, pool["default_SR"]]:
        if x.db.has("SR", sr) and is_plugged(x, sr, vm["resident_on"]):
            return str(sr)
    raise ApiError("VM_NO_SUSPEND_SR", ref)


@handler("VM.resume")
def resume(x: Context, ref: str, paused: bool, _force: bool) -> None:
    """Go on from its saved memory, where it can."""
    require(x.db, "VM", ref, "resume")
    _wake(x, ref, _choose_host(x, ref), paused=paused)


@handler("VM.resume_on")
def resume_on(x: Context, ref: str, host: str, paused: bool, _force: bool) -> None:
    """Go on from its saved memory on this host."""
    require(x.db, "VM", ref, "resume_on")
    assert_can_boot_here(x, ref, host)
    _wake(x, ref, host, paused=paused)


def _wake(x: Context, ref: str, host: str, *, paused: bool) -> None:
    saved = x.db.get("VM", ref)["suspend_VDI"]
    if not x.db.has("VDI", saved):
        raise ApiError("VM_HAS_NO_SUSPEND_VDI", ref)
    settle_on(x, ref, host)
    x.db.update("VM", ref, power_state=PAUSED if paused else RUNNING, suspend_VDI=NULL)
    remove(x, saved)


@handler("VM.power_state_reset")
def power_state_reset(x: Context, ref: str) -> None:
    """Call a VM off whose host is gone."""
    require(x.db, "VM", ref, "power_state_reset")
    vm = x.db.get("VM", ref)
    if vm["is_control_domain"]:
        raise ApiError("CANNOT_RESET_CONTROL_DOMAIN", ref)
    host = vm["resident_on"]
    if x.db.has("host", host) and x.db.get("host_metrics", x.db.get("host", host)["metrics"])["live"]:
        raise ApiError("DOMAIN_EXISTS", ref, str(vm["domid"]))
    stop(x, ref)
