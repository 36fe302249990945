"""Security groups by libvirt's network filters alone.

They see what passes the bridge: what this host itself routes into it, libvirt's rules do not see, so a host that routes
is refused (`virt/firewall/combined.py` has libvirt's filters there too, for addresses only). There are no address sets
in them, so a rule that follows a group is one rule for each of its members, or run of members.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Self

from oslo_config.cfg import ConfigOpts

from virt.errors import DriverConfigError, FirewallError, VirtError
from virt.execute import Execute, run
from virt.firewall import conf as firewall_conf
from virt.firewall import nwfilter_audit as auditing
from virt.firewall.backstop import Backstop
from virt.firewall.base import Drift, FilterStore, FirewallDriver
from virt.firewall.guard import Guarded, TapGuard
from virt.firewall.nwfilter_filters import (
    group_filter,
    group_name,
    instance_filter,
    instance_group_name,
    provider_filter,
    static_filters,
    tap_filter,
    tap_name,
)
from virt.firewall.nwfilter_store import NamedFilters, attempt, have_bound
from virt.firewall.nwfilter_xml import Filter
from virt.firewall.rules import GroupRules, InstanceRules, Members, instance_rules, member_set, provider_denies
from virt.network import conf as network_conf
from virt.network.mode import NetworkMode
from virt.spec import InstanceSpec, Vif

LOG = logging.getLogger(__name__)
ARRIVAL_S, ARRIVAL_POLL_S = 1800.0, 0.2
_ATTEMPTS = 3
NOTHING_HELD = Guarded(names=frozenset(), open=frozenset(), stale=frozenset())


class NWFilterFirewall(FirewallDriver):
    """Filters kept by libvirt, and taps kept shut until libvirt filters them."""

    def __init__(
        self,
        filters: FilterStore,
        guard: TapGuard,
        *,
        allow_project_net_traffic: bool = False,
        vpn_image_id: str = "",
        execute: Execute = run,
    ) -> None:
        self._named = NamedFilters(filters, self._settle)
        self._filters, self._guard, self._execute = filters, guard, execute
        self._backstop = Backstop(execute)
        self._allow_project_net_traffic, self._vpn_image_id = allow_project_net_traffic, vpn_image_id
        self._guests: dict[str, InstanceRules] = {}
        self._members: dict[int, Members] = {}
        self._lock = threading.RLock()

    @classmethod
    def from_conf(cls, conf: ConfigOpts, filters: FilterStore | None = None) -> Self:
        """Read the options of virt/firewall/conf.py."""
        conf.register_opts(firewall_conf.OPTS)
        if filters is None:
            raise DriverConfigError(
                "firewall_driver = nwfilter: its filters are libvirt's; compute_driver is not libvirt"
            )
        _demand_that_nothing_is_routed(conf)
        return cls(
            filters,
            TapGuard(),
            allow_project_net_traffic=conf.allow_project_net_traffic,
            vpn_image_id=conf.vpn_image_id,
        )

    def init_host(self) -> None:
        auditing.demand_bridged_traffic_is_seen(self._execute)
        self._named.await_others()  # what a daemon before asked for, and was killed, must not meet what comes now
        try:
            self._guard.ensure()
            self._backstop.ensure()
        except FirewallError as exc:
            raise DriverConfigError(f"firewall_driver = nwfilter: {exc}") from exc
        with self._lock:
            self._named.ensure_static()

    def filter_name(self, spec: InstanceSpec, vif: Vif) -> str:
        return tap_name(spec.name, vif.mac)

    def setup_basic_filtering(self, spec: InstanceSpec) -> None:  # noqa: ARG002 - the same for every guest
        with self._lock:
            self._named.ensure_static()

    def prepare_instance_filter(self, spec: InstanceSpec) -> None:
        rules = self._rules(spec)
        self._guard.ensure(tap.dev for tap in rules.taps)
        with self._lock:
            before = self._guests.get(rules.name)
            self._guests[rules.name] = rules
            self._members |= rules.members
            for group in rules.groups:
                self._put_group(group)
            self._named.put(instance_filter(rules))
            for tap in rules.taps:
                self._named.put(tap_filter(rules, tap))
            self._drop_unused(before, rules)

    def apply_instance_filter(self, spec: InstanceSpec) -> None:
        """Open the guest's taps once libvirt says that it filters them. FirewallError names one that stays shut.

        A guest that went on from memory saved without filters gets them now. Taps that are not there stay guarded.
        """
        there = [vif for vif in spec.vifs if self._is_filtered(spec, vif)]
        if there:
            self._guard.open([vif.dev for vif in there])

    def expect_instance(self, spec: InstanceSpec) -> None:
        threading.Thread(target=self._open_when_here, args=(spec,), name=f"filters:{spec.name}", daemon=True).start()

    def unfilter_instance(self, spec: InstanceSpec) -> None:
        with self._lock:
            told = self._rules(spec)
            known = self._guests.pop(spec.name, told)
            self._drop_unused(known, None)
            self._drop_unused(told, None)

    def refresh_security_group_rules(self, specs: Sequence[InstanceSpec]) -> None:
        with self._lock:
            here = [self._rules(spec) for spec in specs if self._filters.xml(instance_group_name(spec.name))]
            before = {rules.name: self._guests.get(rules.name) for rules in here}
            for rules in here:
                self._guests[rules.name] = rules
                self._members |= rules.members
            for group in {group.id: group for rules in here for group in rules.groups}.values():
                self._put_group(group)
            for rules in here:
                self._named.put(instance_filter(rules))
            for rules in here:
                self._drop_unused(before[rules.name], rules)

    def refresh_security_group_members(self, group_id: int, members: Sequence[str]) -> None:
        with self._lock:
            followers = {
                group.id: group
                for rules in self._guests.values()
                for group in rules.groups
                if group_id in group.follows
            }
            if followers:
                self._members[group_id] = member_set(members)
            for group in followers.values():
                self._put_group(group)

    def refresh_provider_fw_rules(self, rules: Sequence[Mapping[str, str]]) -> None:
        with self._lock:
            self._named.ensure_static()
            self._named.put(provider_filter(provider_denies(rules)))

    def instance_filter_exists(self, spec: InstanceSpec) -> bool:
        names = [instance_group_name(spec.name), *(tap_name(spec.name, vif.mac) for vif in spec.vifs)]
        return all(self._filters.xml(name) is not None for name in names)

    def audit(self, specs: Sequence[InstanceSpec], provider_rules: Sequence[Mapping[str, str]]) -> list[Drift]:
        with self._lock:
            guests = [self._rules(spec) for spec in specs]
            wanted = _wanted(guests, provider_rules)
            kernel = auditing.look(self._execute)
            left = auditing.leftovers(self._filters.names(), wanted)
            return [
                *self._drifted(guests, wanted),
                *(Drift(what=f"filter {name}", problem="is of no guest here") for name in left),
                *auditing.backstop(kernel),
                *(fault.drift for fault in self._faults(guests, wanted, kernel)),
            ]

    def repair(self, specs: Sequence[InstanceSpec], provider_rules: Sequence[Mapping[str, str]]) -> list[Drift]:
        with self._lock:
            found = self.audit(specs, provider_rules)
            self._backstop.ensure()
            guests = [self._rules(spec) for spec in specs]
            wanted = _wanted(guests, provider_rules)
            self._guests = {rules.name: rules for rules in guests}
            self._members = {key: known for rules in guests for key, known in rules.members.items()}
            for name, one in wanted.items():
                attempt(f"filter {name}", partial(self._named.put, one))
            for name in auditing.leftovers(self._filters.names(), wanted):
                self._drop_leftover(name)
            self._mend_taps(guests, wanted)
            return found

    def _open_when_here(self, spec: InstanceSpec) -> None:
        """Open the taps of a guest that comes; the next audit does it for one that takes too long."""
        until = time.monotonic() + ARRIVAL_S
        while spec.name in self._guests and time.monotonic() < until:
            try:
                bindings = self._filters.bindings()
                if all(bindings.get(vif.dev) == self.filter_name(spec, vif) for vif in spec.vifs):
                    self._guard.open([vif.dev for vif in spec.vifs])
                    return
            except VirtError as exc:
                LOG.info("guest %s: is looked for again: %s", spec.name, exc)
            time.sleep(ARRIVAL_POLL_S)

    def _is_filtered(self, spec: InstanceSpec, vif: Vif) -> bool:
        return have_bound(self._filters, self._execute, spec.name, vif.dev, self.filter_name(spec, vif))

    def _mend_taps(self, guests: Sequence[InstanceRules], wanted: Mapping[str, Filter]) -> None:
        """Shut what is not filtered, have it filtered, and open what is. Names without a tap are guarded no more."""
        wrong = self._faults(guests, wanted, auditing.look(self._execute))
        known = {tap.dev for rules in guests for tap in rules.taps}
        held = self._guard.held() or NOTHING_HELD
        self._guard.shut([*(fault.dev for fault in wrong if fault.dev in held.open), *held.stale])
        self._guard.ensure(known)
        for fault in wrong:
            if fault.kind is auditing.Kind.UNBOUND:
                attempt(fault.drift.what, partial(self._filters.bind, fault.guest, fault.dev, fault.filter))
            elif fault.kind is auditing.Kind.UNFILTERED:
                attempt(fault.drift.what, partial(self._named.renew, wanted[fault.filter]))
        for fault in self._faults(guests, wanted, auditing.look(self._execute)) if wrong else ():
            if fault.kind is auditing.Kind.SHUT:
                attempt(fault.drift.what, partial(self._guard.open, [fault.dev]))
        # a tap that is there but of no guest we know may be one's that we should know
        self._guard.forget(held.names - known - auditing.interfaces(self._execute))

    def _settle(self) -> None:
        """Have libvirt make anew, behind shut taps, what it left half made: its next change begins by removing that.

        ebtables fails now and then where another program changes nftables at the same moment, and libvirt goes on.
        """
        doubtful = (self._guard.held() or NOTHING_HELD).open - auditing.checked(self._execute)
        every = ((rules, tap) for rules in self._guests.values() for tap in rules.taps)
        left = {tap.dev: tap_filter(rules, tap) for rules, tap in every if tap.dev in doubtful}
        self._guard.shut(left)
        for _ in range(_ATTEMPTS):
            if not left:
                break
            LOG.warning("packet filters: libvirt left the rules of %s half made; they are made anew", ", ".join(left))
            for wanted in left.values():
                self._named.renew(wanted)
            whole = auditing.checked(self._execute)
            self._guard.open([dev for dev in left if dev in whole])
            left = {dev: wanted for dev, wanted in left.items() if dev not in whole}

    def _drop_leftover(self, name: str) -> None:
        try:
            self._named.drop(name)
        except FirewallError as exc:
            LOG.warning("a filter that no guest here should need stays, for something needs it: %s", exc)

    def _drifted(self, guests: Sequence[InstanceRules], wanted: Mapping[str, Filter]) -> list[Drift]:
        guest_of = {instance_group_name(rules.name): rules.name for rules in guests}
        guest_of |= {tap_name(rules.name, tap.mac): rules.name for rules in guests for tap in rules.taps}
        drifts = (self._named.drift(one, guest_of.get(name)) for name, one in wanted.items())
        return [one for one in drifts if one is not None]

    def _faults(
        self, guests: Sequence[InstanceRules], wanted: Mapping[str, Filter], kernel: auditing.Kernel
    ) -> list[auditing.Fault]:
        held = self._guard.held() or NOTHING_HELD
        return auditing.faults(guests, wanted, self._filters.bindings(), kernel, held)

    def _rules(self, spec: InstanceSpec) -> InstanceRules:
        return instance_rules(
            spec, allow_project_net_traffic=self._allow_project_net_traffic, vpn_image_id=self._vpn_image_id
        )

    def _put_group(self, group: GroupRules) -> None:
        self._named.put(group_filter(group, self._members))

    def _drop_unused(self, before: InstanceRules | None, now: InstanceRules | None) -> None:
        """Remove the filters that a guest had and has no more: its own, and those of groups that no guest is in."""
        if before is None:
            return
        kept = set() if now is None else {tap.mac for tap in now.taps}
        gone = [tap for tap in before.taps if tap.mac not in kept]
        for tap in gone:
            self._named.drop(tap_name(before.name, tap.mac))
        self._guard.forget([tap.dev for tap in gone])
        if now is None:
            self._named.drop(instance_group_name(before.name))
        in_use = {group.id for rules in self._guests.values() for group in rules.groups}
        for group in before.groups:
            if group.id not in in_use:
                self._drop_leftover(group_name(group.id))
        followed = {one for rules in self._guests.values() for one in rules.members}
        for group_id in set(before.members) - followed:
            self._members.pop(group_id, None)


def _demand_that_nothing_is_routed(conf: ConfigOpts) -> None:
    """DriverConfigError where this host is its guests' gateway: libvirt's rules do not see what it routes to them."""
    conf.register_opts(network_conf.OPTS)
    if NetworkMode.from_conf(conf).routes:
        raise DriverConfigError(
            f"firewall_driver = nwfilter: libvirt's filters do not see what this host routes to its guests, as "
            f"network_manager = {conf.network_manager} with network_routing = {conf.network_routing} has it do; "
            f"use firewall_driver = iptables or nwfilter+iptables, or network_routing = none"
        )


def _wanted(guests: Sequence[InstanceRules], provider_rules: Sequence[Mapping[str, str]]) -> dict[str, Filter]:
    """Every filter that these guests need, by name; each after those it refers to."""
    members = {key: known for rules in guests for key, known in rules.members.items()}
    groups = {group.id: group for rules in guests for group in rules.groups}
    found = [*static_filters(), provider_filter(provider_denies(provider_rules))]
    found += [group_filter(group, members) for group in groups.values()]
    found += [instance_filter(rules) for rules in guests]
    found += [tap_filter(rules, tap) for rules in guests for tap in rules.taps]
    return {one.name: one for one in found}
