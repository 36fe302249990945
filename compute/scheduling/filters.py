"""Filters: pure functions that say why a host cannot take an instance, or None when it can.

A reason reads `what (details)`: hosts refused for the same `what` are told of together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from compute.errors import ConfigError
from compute.scheduling.loading import load
from compute.scheduling.request import AFFINITY, ANTI_AFFINITY, Request
from db.compute_nodes import Candidate

Filter = Callable[[Candidate, Request], str | None]

DISABLED = "disabled"


def up_within(service_down_time_s: float) -> Filter:
    """The filter for hosts whose daemon reported within that time, by the database's clock."""

    def up(candidate: Candidate, _request: Request) -> str | None:
        if candidate.age_s is None:
            return "down (stopped, or never started)"
        if candidate.age_s > service_down_time_s:
            return f"down (last report {candidate.age_s:.0f} s ago)"
        return None

    return up


def at_most_cores(max_cores: int) -> Filter:
    """The filter for hosts whose instances would have no more than `max_cores` vCPUs."""

    def cores(candidate: Candidate, request: Request) -> str | None:
        used = candidate.node.vcpus_used
        if used + request.vcpus > max_cores:
            return f"too many cores ({used} used, needs {request.vcpus}, max_cores {max_cores})"
        return None

    return cores


def enabled(candidate: Candidate, _request: Request) -> str | None:
    """Operators have not taken the host out of scheduling."""
    return DISABLED if candidate.disabled else None


def zone(candidate: Candidate, request: Request) -> str | None:
    """The host is in the zone that was asked for, if any was."""
    if request.availability_zone and candidate.availability_zone != request.availability_zone:
        return f"in another zone ({candidate.availability_zone}, not {request.availability_zone})"
    return None


def excluded(candidate: Candidate, request: Request) -> str | None:
    """The host is not left out: tried before, or where the instance is now."""
    why = request.exclude.get(candidate.node.host)
    return None if why is None else f"left out ({why:.200})"


def hypervisor_type(candidate: Candidate, request: Request) -> str | None:
    """The host runs the hypervisor that the image needs, if it needs one."""
    wanted, has = request.hypervisor_type, candidate.node.hypervisor_type
    if wanted and wanted.lower() != has.lower():
        return f"another hypervisor ({has or 'unknown'}, not {wanted})"
    return None


def affinity(candidate: Candidate, request: Request) -> str | None:
    """An affinity group's members share a host."""
    if request.group_policy == AFFINITY and request.group_hosts and candidate.node.host not in request.group_hosts:
        return f"apart from its server group (on {', '.join(sorted(request.group_hosts))})"
    return None


def anti_affinity(candidate: Candidate, request: Request) -> str | None:
    """An anti-affinity group's members share no host."""
    if request.group_policy == ANTI_AFFINITY and candidate.node.host in request.group_hosts:
        return "holds another member of its server group"
    return None


def same_host(candidate: Candidate, request: Request) -> str | None:
    """The host is one of those asked for, if any were."""
    if request.same_host and candidate.node.host not in request.same_host:
        return "not one of the hosts asked for"
    return None


def different_host(candidate: Candidate, request: Request) -> str | None:
    """The host is none of those to avoid."""
    return "one of the hosts to avoid" if candidate.node.host in request.different_host else None


def vcpu(candidate: Candidate, request: Request) -> str | None:
    """The host has the vCPUs to spare, overcommitted as its row says."""
    node = candidate.node
    limit = node.vcpus * node.cpu_allocation_ratio
    if node.vcpus_used + request.vcpus > limit:
        return f"not enough vCPUs (free {_free(limit, node.vcpus_used)}, needs {request.vcpus})"
    return None


def ram(candidate: Candidate, request: Request) -> str | None:
    """The host has the memory to spare, overcommitted as its row says."""
    node = candidate.node
    limit = node.memory_mb * node.ram_allocation_ratio
    if node.memory_mb_used + request.memory_mb > limit:
        return f"not enough memory (free {_free(limit, node.memory_mb_used)} MiB, needs {request.memory_mb} MiB)"
    return None


def disk(candidate: Candidate, request: Request) -> str | None:
    """The host has the disk space to spare, overcommitted as its row says."""
    node = candidate.node
    limit = node.local_gb * node.disk_allocation_ratio
    if node.local_gb_used + request.local_gb > limit:
        return f"not enough disk (free {_free(limit, node.local_gb_used)} GiB, needs {request.local_gb} GiB)"
    return None


def _free(limit: float, used: int) -> int:
    return max(0, int(limit - used))


ALWAYS: Mapping[str, Filter] = {
    "excluded": excluded,
    "hypervisor_type": hypervisor_type,
    "affinity": affinity,
    "anti_affinity": anti_affinity,
    "vcpu": vcpu,
    "ram": ram,
    "disk": disk,
}
"""What no driver, no setting and no forced host gets around; so is `up`, which the scheduler itself adds."""

OPTIONAL: Mapping[str, Filter] = {
    "enabled": enabled,
    "zone": zone,
    "same_host": same_host,
    "different_host": different_host,
}

NAMES = ("up", *OPTIONAL, *ALWAYS)


def chosen(names: Iterable[str]) -> tuple[Filter, ...]:
    """The filters of these names or dotted paths in this order, then whatever of ALWAYS they leave out.

    Raises ConfigError for a name that is neither.
    """
    table = {**OPTIONAL, **ALWAYS}
    listed = [_find(name, table) for name in names if name != "up"]
    return tuple(dict.fromkeys([*listed, *ALWAYS.values()]))


def _find(name: str, table: Mapping[str, Filter]) -> Filter:
    if name in table:
        return table[name]
    if "." not in name:
        raise ConfigError(f"scheduler_filters: {name!r} is none of {', '.join(NAMES)}, nor a dotted path")
    found: Filter = load(name, "scheduler_filters")
    return found
