"""FiltersTraffic, by whatever firewall the driver was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from virt.driver import FiltersTraffic
from virt.firewall.base import Drift, FirewallDriver
from virt.spec import InstanceSpec


class Filtering(FiltersTraffic):
    """The filters of libvirt's guests."""

    _firewall: FirewallDriver

    def ensure_filtering_rules_for_instance(self, spec: InstanceSpec) -> None:
        self._firewall.setup_basic_filtering(spec)
        self._firewall.prepare_instance_filter(spec)

    def unfilter_instance(self, spec: InstanceSpec) -> None:
        self._firewall.unfilter_instance(spec)

    def refresh_security_group_rules(self, specs: Sequence[InstanceSpec]) -> None:
        self._firewall.refresh_security_group_rules(specs)

    def refresh_security_group_members(self, group_id: int, members: Sequence[str]) -> None:
        self._firewall.refresh_security_group_members(group_id, members)

    def refresh_provider_fw_rules(self, rules: Sequence[Mapping[str, str]]) -> None:
        self._firewall.refresh_provider_fw_rules(rules)

    def audit_filters(self, specs: Sequence[InstanceSpec], rules: Sequence[Mapping[str, str]]) -> list[Drift]:
        return self._firewall.audit(specs, rules)

    def repair_filters(self, specs: Sequence[InstanceSpec], rules: Sequence[Mapping[str, str]]) -> list[Drift]:
        return self._firewall.repair(specs, rules)
