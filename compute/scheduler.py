"""The scheduler: finds hosts for instances and takes the room there, inside the caller's transaction.

What to choose is decided in compute.scheduling, from data alone; here it meets the database. Choosing may rest on
stale data, the claim never does: it is one conditional UPDATE, so a host is not oversold however many schedulers run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType

import db.compute_nodes
import db.server_groups
import db.services
from compute.errors import HostNotFoundError, NoValidHostError, ServerGroupNotFoundError
from compute.scheduling import filters
from compute.scheduling.drivers import SchedulingDriver
from compute.scheduling.plan import Hosts, NoPlanError, Planner, with_instance
from compute.scheduling.refusals import explain
from compute.scheduling.request import Request
from db.errors import RowNotFoundError
from db.instance_types import InstanceType
from db.instances import Instance
from db.session import Tx

_NOWHERE: Mapping[str, str] = MappingProxyType({})


class Scheduler:
    """Places instances. One object serves every thread of a process."""

    def __init__(
        self,
        driver: SchedulingDriver,
        *,
        service_down_time_s: float,
        candidates_ttl_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """candidates_ttl_s: how long the list of hosts is used again before it is read anew; 0: not at all."""
        self._planner = Planner(driver, filters.up_within(service_down_time_s))
        self._recent = RecentHosts(candidates_ttl_s, clock)

    def place(self, tx: Tx, request: Request) -> str:
        """Claim room for one instance and return the host: two statements, or one while the list of hosts is recent.

        The caller writes the host into the instance's row in the same transaction. Raises NoValidHostError, whose
        message says why each host was refused, or HostNotFoundError for a forced host that is not registered.
        """
        return self.place_many(tx, [request])[0]

    def would_fit(self, tx: Tx, request: Request) -> bool:
        """True if a host would take the instance once every daemon that is down reports again."""
        found = {candidate.node.host: replace(candidate, age_s=0.0) for candidate in db.compute_nodes.candidates(tx)}
        try:
            self._planner.plan(found, [request])
        except (NoPlanError, HostNotFoundError):
            return False
        return True

    def place_many(self, tx: Tx, requests: Sequence[Request]) -> list[str]:
        """Claim room for all of them and return their hosts in order: one claim each and one list of hosts for all.

        A claim that another scheduler got to first is tried on the next best host; the list of hosts is read a second
        time at the most. All or nothing: after the errors of `place`, the caller must roll `tx` back.
        """
        batch = _Batch(requests)
        try:
            self._place(tx, batch)
        except NoPlanError as exc:
            raise NoValidHostError(explain(str(exc.request), _with_reasons(tx, exc.refused))) from exc
        return batch.hosts()

    def _place(self, tx: Tx, batch: _Batch) -> None:
        recent = self._recent.get()
        if recent is None:
            self._round(tx, batch, self._read(tx))
        else:
            with suppress(NoPlanError, HostNotFoundError):  # a list that may be stale cannot refuse; the next one does
                self._round(tx, batch, recent)
        if batch.pending:
            batch.forget_losses()
            hosts = self._read(tx)
            while batch.pending:
                hosts = self._round(tx, batch, hosts)

    def _read(self, tx: Tx) -> Hosts:
        hosts = {candidate.node.host: candidate for candidate in db.compute_nodes.candidates(tx)}
        self._recent.put(hosts)
        return hosts

    def _round(self, tx: Tx, batch: _Batch, hosts: Hosts) -> Hosts:
        """Plan for what is pending and claim it; return the hosts as they are then.

        Claims go in the order of host names, so that two batches wait for each other and do not deadlock.
        """
        planned = self._planner.plan(hosts, batch.requests())
        after = dict(hosts)
        for host, at in sorted(zip(planned, batch.pending, strict=True)):
            request = batch.wanted[at]
            sizes = {"vcpus": request.vcpus, "memory_mb": request.memory_mb, "local_gb": request.local_gb}
            if db.compute_nodes.claim(tx, host, **sizes):
                batch.won(at, host)
                self._recent.took(host, request)
                if batch.pending:
                    after[host] = with_instance(after[host], request)
            else:
                batch.lost(at, host)
        return after


class _Batch:
    """The requests of one call: which have a host, and which lost a race for one."""

    def __init__(self, wanted: Sequence[Request]) -> None:
        self.wanted = wanted
        self._won: dict[int, str] = {}
        self._lost: dict[int, dict[str, str]] = {}

    @property
    def pending(self) -> list[int]:
        """Positions of the requests without a host."""
        return [at for at in range(len(self.wanted)) if at not in self._won]

    def requests(self) -> list[Request]:
        """What is pending, knowing what this call has done so far."""
        return [self._informed(self.wanted[at], self._lost.get(at, {})) for at in self.pending]

    def _informed(self, request: Request, lost: Mapping[str, str]) -> Request:
        if not self._won and not lost:
            return request
        placed = {
            host
            for at, host in self._won.items()
            if self.wanted[at].group_policy and self.wanted[at].server_group_id == request.server_group_id
        }
        return replace(request, exclude={**request.exclude, **lost}, group_hosts=request.group_hosts | placed)

    def won(self, at: int, host: str) -> None:
        """The claim succeeded."""
        self._won[at] = host

    def lost(self, at: int, host: str) -> None:
        """The host had no room any more."""
        self._lost.setdefault(at, {})[host] = "its room was taken meanwhile"

    def forget_losses(self) -> None:
        """A newer list of hosts shows what is taken."""
        self._lost.clear()

    def hosts(self) -> list[str]:
        """The hosts in the order of the requests, once nothing is pending."""
        return [self._won[at] for at in range(len(self.wanted))]


class RecentHosts:
    """The list of hosts that was read last, kept for a while and adjusted by what this process placed since."""

    def __init__(self, ttl_s: float, clock: Callable[[], float]) -> None:
        """ttl_s 0: nothing is kept."""
        self._ttl_s, self._clock = ttl_s, clock
        self._lock = threading.Lock()
        self._hosts: Hosts | None = None
        self._read_at = 0.0

    def get(self) -> Hosts | None:
        """The list while it is recent, else None."""
        with self._lock:
            if self._hosts is None or self._clock() - self._read_at >= self._ttl_s:
                return None
            return self._hosts

    def put(self, hosts: Hosts) -> None:
        """Keep what was just read."""
        if self._ttl_s > 0:
            with self._lock:
                self._hosts, self._read_at = hosts, self._clock()

    def took(self, host: str, request: Request) -> None:
        """Book an instance. If its transaction rolls back, the host only looks fuller than it is for a while."""
        with self._lock:
            if self._hosts is not None and host in self._hosts:
                self._hosts = {**self._hosts, host: with_instance(self._hosts[host], request)}


def group_facts(tx: Tx, server_group_id: int, *, without: int | None = None) -> tuple[str, frozenset[str]]:
    """A server group's policy and its members' hosts, locked until `tx` ends, for a Request's group fields.

    Two creates in one group so happen one after the other, and the second sees the first's host. Call it before
    inserting the instances: the lock must come before the rows that refer to the group. without: the id of a member
    that is to move. Raises ServerGroupNotFoundError.
    """
    try:
        group = db.server_groups.lock(tx, server_group_id)
    except RowNotFoundError as exc:
        raise ServerGroupNotFoundError(f"no server group {server_group_id}") from exc
    members = db.server_groups.members(tx, server_group_id)
    return group.policy, frozenset(host for member, host in members.items() if host and member != without)


def request_for(
    tx: Tx,
    row: Instance,
    *,
    availability_zone: str | None,
    size: Instance | InstanceType | None = None,
    force_host: str | None = None,
    exclude: Mapping[str, str] = _NOWHERE,
) -> Request:
    """What an instance that exists asks of its next host, its server group's facts read and locked in `tx`.

    size: what it will have there, when that is not its own.
    """
    size = size or row
    policy, members = None, frozenset[str]()
    if row.server_group_id is not None:
        policy, members = group_facts(tx, row.server_group_id, without=row.id)
    return Request(
        vcpus=size.vcpus,
        memory_mb=size.memory_mb,
        local_gb=size.local_gb,
        project_id=row.project_id,
        availability_zone=availability_zone,
        force_host=force_host,
        exclude=exclude,
        server_group_id=row.server_group_id,
        group_policy=policy,
        group_hosts=members,
    )


def _with_reasons(tx: Tx, refused: Mapping[str, str]) -> Mapping[str, str]:
    """Add what operators said when they disabled hosts: a statement that only a refusal costs."""
    if filters.DISABLED not in refused.values():
        return refused
    said = {
        live.service.host: live.service.disabled_reason
        for live in db.services.list_all(tx)
        if live.service.disabled_reason and live.service.binary == "nova-compute"
    }
    return {
        host: f"{reason} ({said[host]})" if reason == filters.DISABLED and host in said else reason
        for host, reason in refused.items()
    }
