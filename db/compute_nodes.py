"""Compute nodes: what hosts have, what instances claimed of it, and the conditional claim that never oversells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from db import resizes, rows
from db.models import compute_nodes as nodes
from db.models import instances, services
from db.prepared import Prepared
from db.session import Tx, utcnow


@dataclass(frozen=True, slots=True)
class ComputeNode:
    """A host's totals and claims: memory in MiB, disk in GiB. `*_used` is what live instances claim."""

    id: int
    service_id: int
    host: str
    vcpus: int
    memory_mb: int
    local_gb: int
    vcpus_used: int
    memory_mb_used: int
    local_gb_used: int
    cpu_allocation_ratio: float
    ram_allocation_ratio: float
    disk_allocation_ratio: float
    hypervisor_type: str
    hypervisor_version: int
    cpu_info: str | None
    running_vms: int
    free_memory_mb: int | None
    free_local_gb: int | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A host as the scheduler sees it: its node, its zone, and whether it may and can take work."""

    node: ComputeNode
    availability_zone: str
    disabled: bool
    age_s: float | None


_ALL = rows.select_live(ComputeNode, nodes)
_CANDIDATES = Prepared(
    sa.select(
        *rows.columns(ComputeNode, nodes),
        services.c.availability_zone,
        services.c.disabled,
        services.c.heartbeat_at,
        utcnow().label("now"),
    )
    .join(services, services.c.id == nodes.c.service_id)
    .where(services.c.deleted == sa.false())
    .order_by(nodes.c.id)
)


def find(tx: Tx, host: str) -> ComputeNode | None:
    """A host's node, or None."""
    return rows.first(tx, ComputeNode, _ALL.where(nodes.c.host == host))


def candidates(tx: Tx) -> list[Candidate]:
    """Every registered host with all that scheduling needs: one statement."""
    return [_candidate(found) for found in _CANDIDATES.every(tx)]


def _candidate(found: Any) -> Candidate:
    node = ComputeNode(*found[:-4])
    age_s = None if found.heartbeat_at is None else (found.now - found.heartbeat_at).total_seconds()
    return Candidate(node, found.availability_zone, bool(found.disabled), age_s)


_CLAIM = Prepared(
    sa.update(nodes)
    .where(
        nodes.c.host == sa.bindparam("on_host"),
        nodes.c.vcpus_used + sa.bindparam("cpus") <= nodes.c.vcpus * nodes.c.cpu_allocation_ratio,
        nodes.c.memory_mb_used + sa.bindparam("mem") <= nodes.c.memory_mb * nodes.c.ram_allocation_ratio,
        nodes.c.local_gb_used + sa.bindparam("disk") <= nodes.c.local_gb * nodes.c.disk_allocation_ratio,
    )
    .values(
        vcpus_used=nodes.c.vcpus_used + sa.bindparam("cpus"),
        memory_mb_used=nodes.c.memory_mb_used + sa.bindparam("mem"),
        local_gb_used=nodes.c.local_gb_used + sa.bindparam("disk"),
        running_vms=nodes.c.running_vms + 1,
    )
)


def claim(tx: Tx, host: str, *, vcpus: int, memory_mb: int, local_gb: int) -> bool:
    """Take room on a host if there is room; False otherwise. The check and the taking are one statement."""
    params = {"on_host": host, "cpus": vcpus, "mem": memory_mb, "disk": local_gb}
    return _CLAIM.change(tx, params) == 1


def release(tx: Tx, host: str, *, vcpus: int, memory_mb: int, local_gb: int) -> None:
    """Give back what a claim took. The resource report mends whatever drifted."""
    _add(tx, host, -vcpus, -memory_mb, -local_gb, -1)


_ADD = Prepared(
    sa.update(nodes)
    .where(nodes.c.host == sa.bindparam("on_host"))
    .values(
        vcpus_used=nodes.c.vcpus_used + sa.bindparam("cpus"),
        memory_mb_used=nodes.c.memory_mb_used + sa.bindparam("mem"),
        local_gb_used=nodes.c.local_gb_used + sa.bindparam("disk"),
        running_vms=nodes.c.running_vms + sa.bindparam("guests"),
    )
)


def _add(tx: Tx, host: str, vcpus: int, memory_mb: int, local_gb: int, count: int) -> None:
    _ADD.change(tx, {"on_host": host, "cpus": vcpus, "mem": memory_mb, "disk": local_gb, "guests": count})


def report(tx: Tx, service_id: int, host: str, totals: Mapping[str, Any]) -> None:
    """Write what a host has, and recount what its instances and moves claim: five statements at any number of them.

    The row is locked before the count, so that no claim committed in between is lost.
    """
    locked = tx.execute(sa.select(nodes.c.id).where(nodes.c.host == host).with_for_update()).first()
    if locked is None:
        rows.insert(tx, nodes, {"service_id": service_id, "host": host, **totals})
    counted = tx.execute(
        sa.select(
            sa.func.coalesce(sa.func.sum(instances.c.vcpus), 0).label("vcpus_used"),
            sa.func.coalesce(sa.func.sum(instances.c.memory_mb), 0).label("memory_mb_used"),
            sa.func.coalesce(sa.func.sum(instances.c.local_gb), 0).label("local_gb_used"),
            sa.func.count().label("running_vms"),
        ).where(instances.c.host == host, instances.c.deleted == sa.false())
    ).one()
    used = {name: int(value) for name, value in counted._mapping.items()}
    for held in resizes.held_on(tx, host):
        used["running_vms"] += 1
        used["vcpus_used"] += held.vcpus
        used["memory_mb_used"] += held.memory_mb
        used["local_gb_used"] += held.local_gb
    tx.execute(
        sa.update(nodes)
        .where(nodes.c.host == host)
        .values(service_id=service_id, updated_at=utcnow(), **totals, **used)
    )


def usage_by_project(tx: Tx, host: str) -> dict[str, dict[str, int]]:
    """What each project's instances claim of a host: {project: {vcpus, memory_mb, local_gb}}."""
    found = tx.execute(
        sa.select(
            instances.c.project_id,
            sa.func.sum(instances.c.vcpus).label("vcpus"),
            sa.func.sum(instances.c.memory_mb).label("memory_mb"),
            sa.func.sum(instances.c.local_gb).label("local_gb"),
        )
        .where(instances.c.host == host, instances.c.deleted == sa.false())
        .group_by(instances.c.project_id)
    )
    return {
        row.project_id: {"vcpus": int(row.vcpus), "memory_mb": int(row.memory_mb), "local_gb": int(row.local_gb)}
        for row in found
    }
