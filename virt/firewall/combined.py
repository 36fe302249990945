"""libvirt's filters and iptables together, as 2011.2's IptablesFirewallDriver combined them.

libvirt keeps guests from lying about their addresses; iptables does so too, and decides by security group what gets to
a guest, bridged or routed. Neither can admit what the other drops. So whichever of the two has been changed, was
disturbed or failed, nothing passes that the other refuses, and a tap is filtered by iptables, which knows it by its
name, before libvirt has seen it: it needs no guard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Self

from oslo_config.cfg import ConfigOpts

from virt.errors import DriverConfigError, FirewallError
from virt.firewall import conf as firewall_conf
from virt.firewall.base import Drift, FilterStore, FirewallDriver
from virt.firewall.iptables import IptablesFirewall
from virt.firewall.nwfilter_basics import BasicFilters
from virt.firewall.nwfilter_filters import tap_name
from virt.spec import InstanceSpec, Vif

NAME = "nwfilter+iptables"
_ALONE = "firewall_driver = iptables: "


class CombinedFirewall(FirewallDriver):
    """What passes `groups`, which knows every rule, and `basics`, which knows the guests' addresses."""

    def __init__(self, groups: IptablesFirewall, basics: BasicFilters) -> None:
        self._groups, self._basics = groups, basics

    @classmethod
    def from_conf(cls, conf: ConfigOpts, filters: FilterStore | None = None) -> Self:
        """Read the options of virt/firewall/conf.py."""
        conf.register_opts(firewall_conf.OPTS)
        if filters is None:
            raise DriverConfigError(f"firewall_driver = {NAME}: half of it is libvirt's; compute_driver is not libvirt")
        return cls(IptablesFirewall.from_conf(conf), BasicFilters(filters, vpn_image_id=conf.vpn_image_id))

    def init_host(self) -> None:
        try:
            self._groups.init_host()
            self._basics.ensure()
        except (DriverConfigError, FirewallError) as exc:
            raise DriverConfigError(f"firewall_driver = {NAME}: {str(exc).removeprefix(_ALONE)}") from exc

    def filter_name(self, spec: InstanceSpec, vif: Vif) -> str:
        return tap_name(spec.name, vif.mac)

    def setup_basic_filtering(self, spec: InstanceSpec) -> None:
        self._groups.setup_basic_filtering(spec)
        self._basics.ensure()

    def prepare_instance_filter(self, spec: InstanceSpec) -> None:
        self._groups.prepare_instance_filter(spec)
        self._basics.prepare(spec)

    def apply_instance_filter(self, spec: InstanceSpec) -> None:
        """A guest that went on from memory saved without filters gets libvirt's now."""
        self._groups.apply_instance_filter(spec)
        self._basics.apply(spec)

    def expect_instance(self, spec: InstanceSpec) -> None:
        self._groups.expect_instance(spec)

    def unfilter_instance(self, spec: InstanceSpec) -> None:
        """libvirt's first: it refuses while the guest still runs, and then iptables filters on."""
        self._basics.remove(spec)
        self._groups.unfilter_instance(spec)

    def refresh_security_group_rules(self, specs: Sequence[InstanceSpec]) -> None:
        self._groups.refresh_security_group_rules(specs)

    def refresh_security_group_members(self, group_id: int, members: Sequence[str]) -> None:
        self._groups.refresh_security_group_members(group_id, members)

    def refresh_provider_fw_rules(self, rules: Sequence[Mapping[str, str]]) -> None:
        self._groups.refresh_provider_fw_rules(rules)

    def instance_filter_exists(self, spec: InstanceSpec) -> bool:
        return self._groups.instance_filter_exists(spec) and self._basics.exist(spec)

    def audit(self, specs: Sequence[InstanceSpec], provider_rules: Sequence[Mapping[str, str]]) -> list[Drift]:
        return _together(self._groups.audit(specs, provider_rules), self._basics.audit(specs))

    def repair(self, specs: Sequence[InstanceSpec], provider_rules: Sequence[Mapping[str, str]]) -> list[Drift]:
        """What one of the two cannot mend keeps the other from nothing."""
        try:
            of_groups = self._groups.repair(specs, provider_rules)
        finally:
            of_basics = self._basics.repair(specs)
        self._basics.retire_guard()
        return _together(of_groups, of_basics)


def _together(of_groups: Sequence[Drift], of_basics: Sequence[Drift]) -> list[Drift]:
    """What both found: what libvirt let pass has passed only if iptables did not hold either."""
    held = not any(one.opened for one in of_groups)
    return [*of_groups, *(replace(one, opened=one.opened and not held) for one in of_basics)]
