"""No filtering: for hosts whose traffic is filtered elsewhere, and for tests."""

from __future__ import annotations

from virt.spec import InstanceSpec


class NoopFirewall:
    """Lets everything pass. Its methods are what a driver calls around a guest's life, in this order."""

    def setup_basic_filtering(self, spec: InstanceSpec) -> None:
        """Have what keeps a guest from lying about its addresses in place."""

    def prepare_instance_filter(self, spec: InstanceSpec) -> None:
        """Have every filter of the guest in place; it is not started before this returns."""

    def apply_instance_filter(self, spec: InstanceSpec) -> None:
        """What can only be done once the guest runs; normally nothing."""

    def unfilter_instance(self, spec: InstanceSpec) -> None:
        """Remove the filters of a guest that is gone; succeed if they are."""

    def instance_filter_exists(self, spec: InstanceSpec) -> bool:  # noqa: ARG002 - the interface asks about one guest
        """True when every filter of the guest is in place."""
        return True
