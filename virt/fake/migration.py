"""Guests that change hosts or sizes."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

from virt.errors import DiskError, GuestNotFoundError, GuestStateError, HypervisorError, IncompatibleCpuError
from virt.fake import build, devices, filters
from virt.fake.build import Step
from virt.fake.hypervisor import FakeHypervisor, sent
from virt.fake.records import Disk, dump, dump_disks, parse_disks
from virt.power_state import Power
from virt.spec import InstanceSpec


def migrate_disk_and_power_off(host: FakeHypervisor, spec: InstanceSpec, dest: str, step: Step) -> str:
    """Stop the guest, undefine it, and keep its disks; a repeated call returns the same."""
    held = host.held(spec.name)
    if held is not None and held.domain is None and held.kept is not None:
        return _disk_info(host, held.kept)
    host.domain(spec.name)
    if not host.commons.knows(dest):
        raise DiskError(f"cannot copy the disks of guest {spec.name}: there is no host {dest}")
    step("stop")
    with host.changing(spec.name) as (held, domain):
        if held.kept is not None:
            raise DiskError(f"guest {spec.name}: an earlier resize is neither confirmed nor reverted")
        domain.turn(Power.SHUTOFF)
    step("copy")
    with host.changing(spec.name) as (held, _):
        held.disks.pop(build.RESCUE_DISK, None)
        held.kept, held.disks, held.domain, held.taps, held.filters = held.disks, {}, None, {}, None
        devices.release_volumes(host, held, spec.uuid)
        return _disk_info(host, held.kept)


def finish_resize(host: FakeHypervisor, spec: InstanceSpec, disk_info: str, step: Step) -> None:
    """Take over the disks, grow them and start the guest; one that runs here already is left alone."""
    held = host.held(spec.name)
    if held is not None and held.domain is not None and held.domain.uuid == spec.uuid:
        return
    disks = _parse_disk_info(disk_info)
    with host.building(spec.name) as fresh, ExitStack() as undo:
        undo.callback(build.abandon, host, fresh, spec)
        step("disks")
        fresh.disks = _grown(host, disks, spec)
        host.save(fresh)
        build.assemble(host, fresh, spec, step)
        undo.pop_all()


def confirm_resize(host: FakeHypervisor, spec: InstanceSpec) -> None:
    """Remove what was kept; a guest of that name stays."""
    with host.lock:
        held = host.held(spec.name)
        if held is None or held.kept is None:
            return
        held.kept = None
        if held.is_empty:
            host.erase(held)
        else:
            host.save(held)


def revert_resize(host: FakeHypervisor, spec: InstanceSpec) -> None:
    """Start the guest from what was kept; a guest made of the new size on this host gives way."""
    held = host.held(spec.name)
    if held is None or (held.kept is None and held.domain is None):
        raise GuestNotFoundError(f"{host.host} keeps nothing of guest {spec.name}")
    if held.kept is None:
        return
    if held.domain is not None:
        build.remove(host, spec)
    with host.building(spec.name) as fresh:
        fresh.disks = dict(fresh.kept or {})
        build.assemble(host, fresh, spec, lambda _: None)
        fresh.kept = None
        host.save(fresh)


def prepare(host: FakeHypervisor, spec: InstanceSpec) -> None:
    """On the destination: filters, interfaces and memory for a guest that is to come."""
    held = host.held(spec.name)
    if held is not None and held.domain is not None:
        return
    with host.building(spec.name) as fresh, host.lock:
        host.check_memory(spec.memory_mb - fresh.reserved_mb)
        fresh.filters, fresh.reserved_mb = filters.render(spec), spec.memory_mb
        fresh.taps = {vif.mac: vif.dev for vif in spec.vifs}
        host.save(fresh)
    host.commons.issue_ticket(host.host, spec.name)


def live_migration(host: FakeHypervisor, spec: InstanceSpec, dest: str, step: Step) -> None:
    """Hand a running guest over; until the hand-over it runs here whatever goes wrong, after it there."""
    domain = host.domain(spec.name)
    step("check")
    if dest == host.host or not host.commons.knows(dest):
        raise HypervisorError(f"cannot migrate guest {spec.name} to {dest}: no such other host")
    if not host.commons.has_ticket(dest, spec.name):
        raise HypervisorError(f"cannot migrate guest {spec.name} to {dest}: {dest} is not ready for it")
    if domain.power not in {Power.RUNNING, Power.PAUSED}:
        raise GuestStateError(f"cannot migrate guest {spec.name}: it is {domain.power.name}")
    step("memory")
    step("switch")
    with host.changing(spec.name) as (held, domain):
        # Staged, noted, sent: whenever this process ends, `is_staged` tells on which host the guest is.
        token = host.token()
        host.commons.stage(host.host, token, dump(held))
        held.moving = token
        host.save(held)
        host.commons.send(host.host, dest, token)
        sent(held)


def cleanup(host: FakeHypervisor, spec: InstanceSpec) -> None:
    """Remove what is here of a guest that does not run here; no effect on one that does."""
    with host.lock:
        held = host.held(spec.name)
        if held is not None and held.domain is not None:
            return
        if held is not None:
            host.erase(held)
    host.commons.void_ticket(host.host, spec.name)


def compare_cpu(own: str, other: str) -> None:
    """IncompatibleCpuError unless a guest of a host with CPU `other` can run on one with `own`."""
    mine: dict[str, Any] = json.loads(own)
    try:
        theirs: dict[str, Any] = json.loads(other)
        features = set(theirs.get("features", ()))
    except (ValueError, AttributeError, TypeError) as exc:
        raise IncompatibleCpuError(f"cannot compare CPUs: {other!r} describes none") from exc
    if theirs.get("arch") != mine["arch"]:
        raise IncompatibleCpuError(f"CPU of arch {theirs.get('arch')} cannot be had on {mine['arch']}")
    if missing := features - set(mine["features"]):
        raise IncompatibleCpuError(f"CPU lacks {', '.join(sorted(missing))}")


def _disk_info(host: FakeHypervisor, disks: dict[str, Disk]) -> str:
    return json.dumps({"source": host.host, "disks": dump_disks(disks)})


def _parse_disk_info(disk_info: str) -> dict[str, Disk]:
    try:
        return parse_disks(json.loads(disk_info)["disks"])
    except (ValueError, KeyError, TypeError) as exc:
        raise DiskError(f"disk_info is not what migrate_disk_and_power_off returned: {exc!r}") from exc


def _grown(host: FakeHypervisor, disks: dict[str, Disk], spec: InstanceSpec) -> dict[str, Disk]:
    wanted_mb = {"root": spec.root_gb * 1024, "ephemeral": spec.ephemeral_gb * 1024, "swap": spec.swap_mb}
    for role, disk in disks.items():
        if 0 < wanted_mb.get(role, 0) < disk.size_mb and role == "root":
            raise DiskError(f"guest {spec.name}: a root disk of {disk.size_mb} MiB does not fit {spec.root_gb} GiB")
    grown = {role: Disk(max(disk.size_mb, wanted_mb.get(role, 0)), disk.contents) for role, disk in disks.items()}
    for role, size_mb in wanted_mb.items():
        if size_mb and role not in grown:
            grown[role] = host.new_disk(size_mb)
    host.check_disk(sum(disk.size_mb for disk in grown.values()))
    return grown
