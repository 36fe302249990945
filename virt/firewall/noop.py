"""No filtering: for hosts whose traffic is filtered elsewhere, and for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from oslo_config.cfg import ConfigOpts

from virt.firewall.base import Drift, FilterStore, FirewallDriver
from virt.spec import InstanceSpec


class NoopFirewall(FirewallDriver):
    """Lets everything pass."""

    tracks_connections = False

    @classmethod
    def from_conf(cls, conf: ConfigOpts, filters: FilterStore | None = None) -> Self:  # noqa: ARG003 - it needs neither
        """There is nothing to read."""
        return cls()

    def setup_basic_filtering(self, spec: InstanceSpec) -> None:
        """Nothing keeps a guest from lying about its addresses."""

    def prepare_instance_filter(self, spec: InstanceSpec) -> None:
        """The guest has no filters."""

    def apply_instance_filter(self, spec: InstanceSpec) -> None:
        """There is nothing to open."""

    def unfilter_instance(self, spec: InstanceSpec) -> None:
        """There is nothing to remove."""

    def refresh_security_group_rules(self, specs: Sequence[InstanceSpec]) -> None:
        """Rules change nothing."""

    def refresh_security_group_members(self, group_id: int, members: Sequence[str]) -> None:
        """Members change nothing."""

    def refresh_provider_fw_rules(self, rules: Sequence[Mapping[str, str]]) -> None:
        """The provider's rules change nothing."""

    def instance_filter_exists(self, spec: InstanceSpec) -> bool:  # noqa: ARG002 - the interface asks about one guest
        """True: no filter is missing."""
        return True

    def audit(self, *_: object) -> list[Drift]:
        """Nothing is wanted, so nothing is amiss."""
        return []

    def repair(self, *_: object) -> list[Drift]:
        """Nothing is wanted, so nothing is amiss."""
        return []
