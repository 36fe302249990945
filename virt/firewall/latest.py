"""What this daemon was told last about groups and guests, so that what was read earlier never takes its place.

A guest's spec is read when its operation begins; its filters may be set minutes later, when its image is there. What
was refreshed in between is newer. And an audit that looked before a guest was there does not make its filters
leftovers, nor does one that looked before a guest went bring them back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Self

from oslo_config.cfg import ConfigOpts

from virt.firewall.base import Drift, FilterStore, FirewallDriver
from virt.spec import InstanceSpec, SecurityGroup, Vif


class LatestFirewall(FirewallDriver):
    """Another firewall, told only the newest that is known. Changes of one guest's filters come one by one."""

    def __init__(self, firewall: FirewallDriver) -> None:
        self._firewall = firewall
        self._guests: dict[str, InstanceSpec] = {}
        self._groups: dict[str, tuple[float, tuple[SecurityGroup, ...]]] = {}
        self._members: dict[int, tuple[float, tuple[str, ...]]] = {}
        self._ended: dict[str, float] = {}
        self._lock = threading.RLock()

    @classmethod
    def from_conf(cls, conf: ConfigOpts, filters: FilterStore | None = None) -> Self:
        """The firewall that `firewall_driver` names."""
        from virt.firewall.base import load

        return cls(load(conf, filters))

    def init_host(self) -> None:
        self._firewall.init_host()

    def filter_name(self, spec: InstanceSpec, vif: Vif) -> str | None:
        return self._firewall.filter_name(spec, vif)

    def setup_basic_filtering(self, spec: InstanceSpec) -> None:
        self._firewall.setup_basic_filtering(spec)

    def prepare_instance_filter(self, spec: InstanceSpec) -> None:
        with self._lock:
            newest = self._newest(spec)
            self._guests[spec.name] = newest
            self._ended.pop(spec.name, None)
            self._firewall.prepare_instance_filter(newest)

    def apply_instance_filter(self, spec: InstanceSpec) -> None:
        self._firewall.apply_instance_filter(spec)

    def expect_instance(self, spec: InstanceSpec) -> None:
        self._firewall.expect_instance(spec)

    def unfilter_instance(self, spec: InstanceSpec) -> None:
        with self._lock:
            self._guests.pop(spec.name, None)
            self._groups.pop(spec.name, None)
            self._ended[spec.name] = time.monotonic()
            self._firewall.unfilter_instance(spec)

    def refresh_security_group_rules(self, specs: Sequence[InstanceSpec]) -> None:
        with self._lock:
            self._note(specs)
            self._firewall.refresh_security_group_rules([self._as_plugged(spec) for spec in specs])

    def refresh_security_group_members(self, group_id: int, members: Sequence[str]) -> None:
        with self._lock:
            self._members[group_id] = (time.monotonic(), tuple(members))
            self._firewall.refresh_security_group_members(group_id, members)

    def refresh_provider_fw_rules(self, rules: Sequence[Mapping[str, str]]) -> None:
        self._firewall.refresh_provider_fw_rules(rules)

    def instance_filter_exists(self, spec: InstanceSpec) -> bool:
        return self._firewall.instance_filter_exists(spec)

    def audit(self, specs: Sequence[InstanceSpec], provider_rules: Sequence[Mapping[str, str]]) -> list[Drift]:
        with self._lock:
            return self._firewall.audit(self._with_prepared(specs), provider_rules)

    def repair(self, specs: Sequence[InstanceSpec], provider_rules: Sequence[Mapping[str, str]]) -> list[Drift]:
        with self._lock:
            everything = self._with_prepared(specs)
            found = self._firewall.repair(everything, provider_rules)
            self._guests = {spec.name: spec for spec in everything}
            oldest = min((spec.read_at for spec in specs), default=time.monotonic())
            self._ended = {name: at for name, at in self._ended.items() if at >= oldest}
            return found

    def _with_prepared(self, specs: Sequence[InstanceSpec]) -> list[InstanceSpec]:
        """These guests but for those that ended since, and those that were prepared here; each as it was told last."""
        here = [spec for spec in specs if spec.read_at >= self._ended.get(spec.name, 0.0)]
        named = {spec.name for spec in here}
        return [*map(self._newest_whole, here), *(one for name, one in self._guests.items() if name not in named)]

    def _newest_whole(self, spec: InstanceSpec) -> InstanceSpec:
        known = self._guests.get(spec.name)
        return self._newest(known if known is not None and known.read_at > spec.read_at else spec)

    def _newest(self, spec: InstanceSpec) -> InstanceSpec:
        """A spec with what was told of its groups and their members since it was read."""
        told = self._groups.get(spec.name)
        groups = told[1] if told is not None and told[0] > spec.read_at else spec.security_groups
        return replace(spec, security_groups=tuple(self._with_members(group, spec.read_at) for group in groups))

    def _with_members(self, group: SecurityGroup, read_at: float) -> SecurityGroup:
        newer = {
            followed: self._members[followed][1]
            for followed in group.members
            if followed in self._members and self._members[followed][0] > read_at
        }
        return replace(group, members={**group.members, **newer}) if newer else group

    def _note(self, specs: Sequence[InstanceSpec]) -> None:
        now = time.monotonic()
        for spec in specs:
            self._groups[spec.name] = (now, spec.security_groups)
            for group in spec.security_groups:
                self._members |= {followed: (now, tuple(found)) for followed, found in group.members.items()}

    def _as_plugged(self, spec: InstanceSpec) -> InstanceSpec:
        """A refreshed guest with the interfaces that it was prepared with."""
        known = self._guests.get(spec.name)
        if known is None:
            return spec
        self._guests[spec.name] = replace(known, security_groups=spec.security_groups)
        return self._guests[spec.name]
