"""Security groups by iptables and ipset, for what is bridged to a guest and for what is routed to it alike.

It needs no other filter beside it: a table of the bridge (virt/firewall/iptables_guard.py) keeps guests from lying
about their addresses, and lets nothing get to them that iptables has not admitted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from oslo_config.cfg import ConfigOpts

from virt.errors import DriverConfigError, FirewallError
from virt.firewall import conf as firewall_conf
from virt.firewall import iptables_audit as auditing
from virt.firewall import iptables_base, iptables_guard, iptables_rules
from virt.firewall import iptables_names as names
from virt.firewall.base import Drift, FilterStore, FirewallDriver
from virt.firewall.iptables_host import FilterHost
from virt.firewall.iptables_ipset import SetSocket
from virt.firewall.iptables_netlink import ElementSocket
from virt.firewall.iptables_plan import NFT, Draft, Known
from virt.firewall.iptables_turns import Turns
from virt.firewall.rules import FAMILIES, InstanceRules, instance_rules, member_set, provider_denies
from virt.spec import InstanceSpec

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something to put into a draft; `looks`: on top of what the host has now, not of what it is known to have."""

    draft: Callable[[Draft], None]
    looks: bool = False


class IptablesFirewall(FirewallDriver):
    """Filters by iptables. mark: the bit of the packet mark that says: admitted. max_members: of one group."""

    def __init__(
        self,
        host: FilterHost,
        *,
        mark: int,
        max_members: int,
        allow_project_net_traffic: bool = False,
        vpn_image_id: str = "",
    ) -> None:
        self._host, self._mark, self._max_members = host, mark, max_members
        self._allow_project_net_traffic, self._vpn_image_id = allow_project_net_traffic, vpn_image_id
        self._known = Known()
        self._turns: Turns[Change] = Turns(self._make)
        self._guard_rules: list[object] | None = None

    @classmethod
    def from_conf(cls, conf: ConfigOpts, filters: FilterStore | None = None) -> Self:  # noqa: ARG003 - needs none
        """Read the options of virt/firewall/conf.py."""
        conf.register_opts(firewall_conf.OPTS)
        return cls(
            FilterHost(
                variant=conf.iptables_variant,
                lock_timeout_s=conf.iptables_lock_timeout,
                feed_elements=ElementSocket().feed,
                feed_sets=SetSocket().feed,
            ),
            mark=1 << conf.iptables_mark_bit,
            max_members=conf.iptables_max_members,
            allow_project_net_traffic=conf.allow_project_net_traffic,
            vpn_image_id=conf.vpn_image_id,
        )

    def init_host(self) -> None:
        self._host.demand_tools()
        if bypasses := self._host.bypasses():
            raise DriverConfigError(f"firewall_driver = iptables: bridged packets would go past: {'; '.join(bypasses)}")
        try:
            self._host.feed(NFT, iptables_guard.skeleton(self._mark))
            self._turns.take(Change(draft=self._put_static, looks=True))
            self._guard_rules = self._known.rules
        except FirewallError as exc:
            raise DriverConfigError(f"firewall_driver = iptables: {exc}") from exc

    def setup_basic_filtering(self, spec: InstanceSpec) -> None:
        """Nothing by itself: what keeps a guest from lying comes with its other filters, in the same change."""

    def prepare_instance_filter(self, spec: InstanceSpec) -> None:
        rules = self._rules(spec)
        self._turns.take(Change(draft=lambda draft: draft.put_guest(rules, anew=True)))

    def apply_instance_filter(self, spec: InstanceSpec) -> None:
        """Nothing: the filters wait for the tap, by its name."""

    def unfilter_instance(self, spec: InstanceSpec) -> None:
        self._turns.take(Change(draft=lambda draft: draft.drop_guest(spec.id)))

    def refresh_security_group_rules(self, specs: Sequence[InstanceSpec]) -> None:
        every = [self._rules(spec) for spec in specs]

        def change(draft: Draft) -> None:
            for rules in every:
                if draft.chain(4, names.instance_chain(rules.id)) is not None:
                    draft.put_guest(rules)

        self._turns.take(Change(draft=change))

    def refresh_security_group_members(self, group_id: int, members: Sequence[str]) -> None:
        found = member_set(members)

        def change(draft: Draft) -> None:
            for family in FAMILIES:
                name = names.member_set(group_id, family)
                if draft.members(name) is not None:
                    draft.put_members(name, found.texts(family))

        self._turns.take(Change(draft=change))

    def refresh_provider_fw_rules(self, rules: Sequence[Mapping[str, str]]) -> None:
        denies = provider_denies(rules)

        def change(draft: Draft) -> None:
            for family in FAMILIES:
                draft.put_chain(family, names.PROVIDER, iptables_rules.provider_chain(denies, family))

        self._turns.take(Change(draft=change))

    def instance_filter_exists(self, spec: InstanceSpec) -> bool:
        rules = self._rules(spec)
        known = self._host.read()
        return auditing.has_guest(known, rules)

    def audit(self, specs: Sequence[InstanceSpec], provider_rules: Sequence[Mapping[str, str]]) -> list[Drift]:
        wanted = self._wanted(specs, provider_rules)
        return [*self._bypassed(), *auditing.compare(self._host.read(), wanted)]

    def repair(self, specs: Sequence[InstanceSpec], provider_rules: Sequence[Mapping[str, str]]) -> list[Drift]:
        wanted = self._wanted(specs, provider_rules)
        found: list[Drift] = []

        def change(draft: Draft) -> None:
            known = draft.known
            if known.rules != wanted.rules:
                self._host.feed(NFT, iptables_guard.skeleton(self._mark))
            found[:] = auditing.compare(known, wanted)
            auditing.put(draft, known, wanted)

        self._turns.take(Change(draft=change, looks=True))
        return [*self._bypassed(), *found]

    def _wanted(self, specs: Sequence[InstanceSpec], provider_rules: Sequence[Mapping[str, str]]) -> auditing.Wanted:
        static = {family: iptables_base.chains(family, self._mark) for family in FAMILIES}
        guests, denies = [self._rules(spec) for spec in specs], provider_denies(provider_rules)
        return auditing.wanted(guests, denies, static, self._guard_rules)

    def _bypassed(self) -> list[Drift]:
        return [
            Drift(what="the kernel", problem=f"{why}: guests get no bridged packet") for why in self._host.bypasses()
        ]

    def _rules(self, spec: InstanceSpec) -> InstanceRules:
        return instance_rules(
            spec, allow_project_net_traffic=self._allow_project_net_traffic, vpn_image_id=self._vpn_image_id
        )

    def _put_static(self, draft: Draft) -> None:
        for family in FAMILIES:
            for name, lines in iptables_base.chains(family, self._mark).items():
                draft.put_chain(family, name, lines)
            for name in (*names.DISPATCHING, names.PROVIDER):
                if draft.chain(family, name) is None:
                    draft.put_chain(family, name, ())
            for name in names.BUILTIN:
                draft.hang(family, name)

    def _make(self, changes: Sequence[Change]) -> None:
        try:
            self._try(changes)
        except FirewallError as exc:
            LOG.warning("packet filters: %s; looking at what is there, and trying once more", exc)
            self._known = self._host.read()
            self._try(changes)

    def _try(self, changes: Sequence[Change]) -> None:
        if any(change.looks for change in changes):
            self._known = self._host.read()
        draft = Draft(self._known)
        for change in sorted(changes, key=lambda change: not change.looks):
            change.draft(draft)
        for name, members in draft.sets.items():
            if members is not None and names.is_member_set(name) and len(members) > self._max_members:
                raise FirewallError(f"{name}: {len(members)} members, and a set holds {self._max_members}")
        self._host.make(draft.steps(self._max_members))
        self._known.learn(draft)
