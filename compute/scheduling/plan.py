"""Plans: hosts for a batch of requests, worked out in memory so that no host is filled beyond its room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from compute.errors import HostNotFoundError
from compute.scheduling import filters
from compute.scheduling.drivers import SchedulingDriver
from compute.scheduling.filters import Filter
from compute.scheduling.request import AFFINITY, Request
from db.compute_nodes import Candidate

Hosts = Mapping[str, Candidate]


class NoPlanError(Exception):
    """No host passes every filter for `request`; `refused` says why, host by host."""

    def __init__(self, request: Request, refused: Mapping[str, str]) -> None:
        super().__init__(str(request))
        self.request, self.refused = request, refused


class Planner:
    """Chooses hosts from data alone: no clock, no database."""

    def __init__(self, driver: SchedulingDriver, up: Filter) -> None:
        """up: what a host must pass before the driver's own filters."""
        self._driver = driver
        self._filters = (up, *driver.filters)
        self._forced = (up, *filters.ALWAYS.values())

    def plan(self, hosts: Hosts, requests: Sequence[Request]) -> list[str]:
        """A host for each request, such that all of them fit together and keep their groups' policies.

        Raises NoPlanError for the first that fits nowhere, HostNotFoundError for a forced host that is not there.
        """
        room = dict(hosts)
        planned: list[str] = []
        members: dict[int | None, frozenset[str]] = {}
        for at, request in enumerate(requests):
            group, known, later = request.server_group_id, request, requests[at + 1 :]
            if request.group_policy is not None:
                known = replace(request, group_hosts=request.group_hosts | members.get(group, frozenset()))
            host = self._choose(room, _with_followers(known, later))
            planned.append(host)
            if later:
                room[host] = with_instance(room[host], request)
                members[group] = members.get(group, frozenset()) | {host}
        return planned

    def _choose(self, room: Hosts, request: Request) -> str:
        held, candidates = self._filters, room
        if request.force_host is not None:
            if request.force_host not in room:
                raise HostNotFoundError(f"no compute host {request.force_host}")
            held, candidates = self._forced, {request.force_host: room[request.force_host]}
        fits: list[Candidate] = []
        refused: dict[str, str] = {}
        for host, candidate in candidates.items():
            for passes in held:
                reason = passes(candidate, request)
                if reason is not None:
                    refused[host] = reason
                    break
            else:
                fits.append(candidate)
        if not fits:
            raise NoPlanError(request, refused)
        return self._driver.choose(fits, request).node.host


def with_instance(candidate: Candidate, request: Request) -> Candidate:
    """The host once the instance is on it."""
    node = candidate.node
    return replace(
        candidate,
        node=replace(
            node,
            vcpus_used=node.vcpus_used + request.vcpus,
            memory_mb_used=node.memory_mb_used + request.memory_mb,
            local_gb_used=node.local_gb_used + request.local_gb,
            running_vms=node.running_vms + 1,
        ),
    )


def _with_followers(request: Request, later: Sequence[Request]) -> Request:
    """The first member of an affinity group asks for room for all that will have to follow it."""
    if request.group_policy != AFFINITY or request.group_hosts:
        return request
    followers = [other for other in later if other.server_group_id == request.server_group_id and other.group_policy]
    return replace(
        request,
        vcpus=request.vcpus + sum(other.vcpus for other in followers),
        memory_mb=request.memory_mb + sum(other.memory_mb for other in followers),
        local_gb=request.local_gb + sum(other.local_gb for other in followers),
    )
