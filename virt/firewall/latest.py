"""What this daemon was told last about groups and guests, so that what was read earlier never takes its place.

A guest's spec is read when its operation begins; its filters may be set minutes later, when its image is there. What
was refreshed in between is newer. And an audit that looked before a guest was there does not make its filters
leftovers, nor does one that looked before a guest went bring them back.

Guests come and go side by side, for the firewall may make their changes together; a refresh waits for them, and they
for it. What is newest is decided when a change's turn has come. Refreshes that wait for their turn are one.

An address that comes to a guest, or goes from it, takes no connection along.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from oslo_config.cfg import ConfigOpts

from virt.errors import FirewallError
from virt.firewall.base import Drift, FilterStore, FirewallDriver
from virt.firewall.conntrack import Connections, addresses_of
from virt.firewall.iptables_turns import Turns
from virt.firewall.line import Line
from virt.firewall.rules import Address
from virt.spec import InstanceSpec, SecurityGroup, Vif

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresh:
    """What was told. members: by group, addresses, and when they were told, on the monotonic clock (s)."""

    specs: Sequence[InstanceSpec] = ()
    members: Mapping[int, tuple[float, tuple[str, ...]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """When a guest went, on the monotonic clock (s), and the addresses whose connections were ended then."""

    at: float = 0.0
    parted: frozenset[Address] = frozenset()


class LatestFirewall(FirewallDriver):
    """Another firewall, told only the newest that is known. Changes of one guest's filters come one by one.

    connections: what connection tracking knows; None where filters do not go by it.
    """

    def __init__(self, firewall: FirewallDriver, connections: Connections | None = None) -> None:
        self._firewall, self._connections = firewall, connections
        self._guests: dict[str, InstanceSpec] = {}
        self._groups: dict[str, tuple[float, tuple[SecurityGroup, ...]]] = {}
        self._members: dict[int, tuple[float, tuple[str, ...]]] = {}
        self._ended: dict[str, End] = {}
        self._line = Line()
        self._refreshes: Turns[Refresh] = Turns(self._refresh)

    @classmethod
    def from_conf(cls, conf: ConfigOpts, filters: FilterStore | None = None) -> Self:
        """The firewall that `firewall_driver` names."""
        from virt.firewall.base import load

        firewall = load(conf, filters)
        return cls(firewall, Connections() if firewall.tracks_connections else None)

    def init_host(self) -> None:
        if self._connections is not None:
            self._connections.demand_tool()
        self._firewall.init_host()

    def filter_name(self, spec: InstanceSpec, vif: Vif) -> str | None:
        return self._firewall.filter_name(spec, vif)

    def setup_basic_filtering(self, spec: InstanceSpec) -> None:
        self._firewall.setup_basic_filtering(spec)

    def prepare_instance_filter(self, spec: InstanceSpec) -> None:
        with self._line.beside(spec.name):
            newest = self._newest(spec)
            self._firewall.prepare_instance_filter(newest)
            if self._connections is not None:
                self._connections.forget(self._changed(newest))
            self._guests[spec.name] = newest
            self._ended.pop(spec.name, None)

    def apply_instance_filter(self, spec: InstanceSpec) -> None:
        self._firewall.apply_instance_filter(spec)

    def expect_instance(self, spec: InstanceSpec) -> None:
        self._firewall.expect_instance(spec)

    def unfilter_instance(self, spec: InstanceSpec) -> None:
        with self._line.beside(spec.name):
            known = self._guests.pop(spec.name, spec)
            self._groups.pop(spec.name, None)
            self._ended[spec.name] = End(at=time.monotonic())
            self._firewall.unfilter_instance(spec)
            self._ended[spec.name] = End(at=time.monotonic(), parted=self._part(spec, known))

    def refresh_security_group_rules(self, specs: Sequence[InstanceSpec]) -> None:
        self._refreshes.take(Refresh(specs=specs))

    def refresh_security_group_members(self, group_id: int, members: Sequence[str]) -> None:
        self._refreshes.take(Refresh(members={group_id: (time.monotonic(), tuple(members))}))

    def refresh_provider_fw_rules(self, rules: Sequence[Mapping[str, str]]) -> None:
        self._firewall.refresh_provider_fw_rules(rules)

    def instance_filter_exists(self, spec: InstanceSpec) -> bool:
        return self._firewall.instance_filter_exists(spec)

    def audit(self, specs: Sequence[InstanceSpec], provider_rules: Sequence[Mapping[str, str]]) -> list[Drift]:
        with self._line.alone():
            return self._firewall.audit(self._with_prepared(specs), provider_rules)

    def repair(self, specs: Sequence[InstanceSpec], provider_rules: Sequence[Mapping[str, str]]) -> list[Drift]:
        with self._line.alone():
            everything = self._with_prepared(specs)
            found = self._firewall.repair(everything, provider_rules)
            self._guests = {spec.name: spec for spec in everything}
            oldest = min((spec.read_at for spec in specs), default=time.monotonic())
            self._ended = {name: end for name, end in self._ended.items() if end.at >= oldest}
            return found

    def _changed(self, spec: InstanceSpec) -> frozenset[Address]:
        """The addresses that come to a guest or go from it now.

        Those that it had when it was read, and that it parted from since, were nobody else's in between.
        """
        if spec.name in self._guests:
            return addresses_of(self._guests[spec.name]) ^ addresses_of(spec)
        end = self._ended.get(spec.name, End())
        return addresses_of(spec) - (end.parted if spec.read_at <= end.at else frozenset())

    def _part(self, spec: InstanceSpec, known: InstanceSpec) -> frozenset[Address]:
        """End the connections of a guest that is gone. Those that cannot be are when its addresses come again."""
        addresses = addresses_of(spec) | addresses_of(known)
        if self._connections is None:
            return frozenset()
        try:
            self._connections.forget(addresses)
        except FirewallError as exc:
            LOG.error("guest %s: is gone, but not its connections, until its addresses are used: %s", spec.name, exc)
            return frozenset()
        return addresses

    def _refresh(self, batch: Sequence[Refresh]) -> None:
        """Tell the firewall once of all that was told, by the newest that is known of it."""
        with self._line.alone():
            for one in batch:
                self._note(one)
            told = {spec.name: spec for one in batch for spec in self._here(one.specs)}
            if told:
                self._firewall.refresh_security_group_rules([self._as_plugged(spec) for spec in told.values()])
            for group_id in dict.fromkeys(group_id for one in batch for group_id in one.members):
                self._firewall.refresh_security_group_members(group_id, self._members[group_id][1])

    def _with_prepared(self, specs: Sequence[InstanceSpec]) -> list[InstanceSpec]:
        """These guests but for those that ended since, and those that were prepared here; each as it was told last."""
        here = self._here(specs)
        named = {spec.name for spec in here}
        return [*map(self._newest_whole, here), *(one for name, one in self._guests.items() if name not in named)]

    def _here(self, specs: Sequence[InstanceSpec]) -> list[InstanceSpec]:
        return [spec for spec in specs if spec.read_at >= self._ended.get(spec.name, End()).at]

    def _newest_whole(self, spec: InstanceSpec) -> InstanceSpec:
        known = self._guests.get(spec.name)
        return self._newest(known if known is not None and known.read_at > spec.read_at else spec)

    def _newest(self, spec: InstanceSpec) -> InstanceSpec:
        """A spec with what was told of its groups and their members since it was read."""
        read_at, groups = self._groups.get(spec.name, (spec.read_at, spec.security_groups))
        if read_at < spec.read_at:
            groups = spec.security_groups
        return replace(spec, security_groups=tuple(self._with_members(group, spec.read_at) for group in groups))

    def _with_members(self, group: SecurityGroup, read_at: float) -> SecurityGroup:
        newer = {
            followed: self._members[followed][1]
            for followed in group.members
            if followed in self._members and self._members[followed][0] >= read_at
        }
        return replace(group, members={**group.members, **newer}) if newer else group

    def _note(self, told: Refresh) -> None:
        """Keep what was told, but for what was read before that which is known."""
        members = dict(told.members)
        for spec in self._here(told.specs):
            if self._groups.get(spec.name, (0.0, ()))[0] <= spec.read_at:
                self._groups[spec.name] = (spec.read_at, spec.security_groups)
            for group in spec.security_groups:
                members |= {followed: (spec.read_at, tuple(found)) for followed, found in group.members.items()}
        for group_id, found in members.items():
            if group_id not in self._members or self._members[group_id][0] <= found[0]:
                self._members[group_id] = found

    def _as_plugged(self, spec: InstanceSpec) -> InstanceSpec:
        """A refreshed guest as it was told last, with the interfaces that it was prepared with."""
        newest = self._newest(self._guests.get(spec.name, spec))
        if spec.name in self._guests:
            self._guests[spec.name] = newest
        return newest
