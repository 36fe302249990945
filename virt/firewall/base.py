"""What a firewall does for a driver, and how the `firewall_driver` flag becomes one."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, Self

from oslo_config.cfg import ConfigOpts

from virt.errors import DriverConfigError
from virt.spec import InstanceSpec, Vif

NONE = "noop"
ALIASES = {
    "noop": "virt.firewall.noop.NoopFirewall",
    "nwfilter": "virt.firewall.nwfilter.NWFilterFirewall",
    "iptables": "virt.firewall.iptables.IptablesFirewall",
    "nwfilter+iptables": "virt.firewall.combined.CombinedFirewall",
    "nova.virt.libvirt_conn.NWFilterFirewall": "virt.firewall.nwfilter.NWFilterFirewall",
    "nova.virt.libvirt_conn.IptablesFirewallDriver": "virt.firewall.combined.CombinedFirewall",
    "nova.virt.libvirt.firewall.NWFilterFirewall": "virt.firewall.nwfilter.NWFilterFirewall",
    "nova.virt.libvirt.firewall.IptablesFirewallDriver": "virt.firewall.combined.CombinedFirewall",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One place where the host's filters are not what they are to be.

    what: the thing by its name on the host (a filter, a chain, a set). problem: what is wrong with it, in words.
    guest: the guest it filters, None when it concerns several or is left over. opened: True when it may have let
    something pass that no rule admits.
    """

    what: str
    problem: str
    guest: str | None = None
    opened: bool = False

    def __str__(self) -> str:
        where = f"guest {self.guest}: " if self.guest else ""
        return f"{where}{self.what}: {self.problem}"


class FilterStore(Protocol):
    """libvirt's named filters, as a firewall needs them. Every call has a deadline.

    Raises HypervisorUnreachableError, DriverTimeoutError, HypervisorError.
    """

    def define(self, xml: str) -> None:
        """Make a filter, or put this one in the place of its namesake; running guests follow at once."""

    def undefine(self, name: str) -> None:
        """Remove a filter; succeed if there is none. HypervisorError while something refers to it."""

    def xml(self, name: str) -> str | None:
        """A filter as libvirt has it; None when there is none."""

    def names(self) -> frozenset[str]:
        """Every filter there is."""

    def bindings(self) -> Mapping[str, str]:
        """The filter that libvirt filters each tap by, by the tap's name."""

    def bound(self, dev: str) -> str | None:
        """The filter that libvirt filters this tap by; None when it filters no such tap."""

    def bind(self, guest: str, dev: str, name: str) -> None:
        """Have libvirt filter this tap of a running guest by this filter; GuestNotFoundError when it has none such."""


class FirewallDriver(ABC):
    """Filters guests' packets by security group, and never fails open.

    The contract of every method: at no moment, whatever it raises and wherever it is cut off, is a packet admitted
    that neither the rules before nor the rules after it admit. A tap that has no filter yet gets nothing through. What
    is in place outlives the daemon. Every method is idempotent. The cost of a method depends on the guests it names,
    never on how many others the host has.

    Methods are called by several threads at once, though never for one guest, and nothing else while it is refreshed,
    audited or repaired. tracks_connections: filters go by the kernel's connection tracking, so an address's
    connections are ended when it comes to a guest, and when it goes (virt/firewall/conntrack.py).

    Raises FirewallError when the host refuses, in its own words; what the flags ask for and the host does not have is
    a DriverConfigError out of `init_host`.
    """

    tracks_connections: ClassVar[bool] = True

    @classmethod
    @abstractmethod
    def from_conf(cls, conf: ConfigOpts, filters: FilterStore | None = None) -> Self:
        """Build one from the daemon's configuration; `filters` are libvirt's, where there is a libvirt."""

    def init_host(self) -> None:  # noqa: B027 - nothing to check is right for some
        """Check that the host can filter, and have what holds for all guests in place: unknown taps get nothing.

        Touches no guest's filters. Raises DriverConfigError naming what is missing.
        """

    def filter_name(self, spec: InstanceSpec, vif: Vif) -> str | None:  # noqa: ARG002 - the interface names both
        """The libvirt filter that this interface's <filterref> is to name; None for none."""
        return None

    def behind_filters(self, spec: InstanceSpec) -> InstanceSpec:
        """The guest with its interfaces naming the filters that they are behind."""
        named = (replace(vif, filter_name=self.filter_name(spec, vif)) for vif in spec.vifs)
        return replace(spec, vifs=tuple(named))

    @abstractmethod
    def setup_basic_filtering(self, spec: InstanceSpec) -> None:
        """Have what keeps a guest from lying about its addresses in place; called before prepare_instance_filter."""

    @abstractmethod
    def prepare_instance_filter(self, spec: InstanceSpec) -> None:
        """Have every filter of the guest in place, as `spec` says; no tap of it is up before this has returned."""

    @abstractmethod
    def apply_instance_filter(self, spec: InstanceSpec) -> None:
        """What can only be done once the guest runs; normally nothing."""

    def expect_instance(self, spec: InstanceSpec) -> None:  # noqa: B027 - nothing, where filters need no tap
        """A prepared guest will come from another host: do as `apply_instance_filter` once it is here; do not wait."""

    @abstractmethod
    def unfilter_instance(self, spec: InstanceSpec) -> None:
        """Remove the filters of a guest that is gone, and what only it used; succeed if they are."""

    @abstractmethod
    def refresh_security_group_rules(self, specs: Sequence[InstanceSpec]) -> None:
        """Make the filters of these guests match their group rules, in one atomic change, or one a group.

        A guest that has no filters here is passed over.
        """

    @abstractmethod
    def refresh_security_group_members(self, group_id: int, members: Sequence[str]) -> None:
        """Make `members` (addresses of both families) those that rules with source `group_id` admit.

        Nothing happens when no rule here follows the group.
        """

    @abstractmethod
    def refresh_provider_fw_rules(self, rules: Sequence[Mapping[str, str]]) -> None:
        """Make these the provider's deny rules for every guest: protocol, from_port, to_port, cidr as strings."""

    @abstractmethod
    def instance_filter_exists(self, spec: InstanceSpec) -> bool:
        """True when every filter of the guest is in place."""

    @abstractmethod
    def audit(self, specs: Sequence[InstanceSpec], provider_rules: Sequence[Mapping[str, str]]) -> list[Drift]:
        """Where the host's filters differ from what these guests, which are all of this host, need. Changes nothing."""

    @abstractmethod
    def repair(self, specs: Sequence[InstanceSpec], provider_rules: Sequence[Mapping[str, str]]) -> list[Drift]:
        """Make the host's filters what these guests, which are all of this host, need; says what was found.

        Called at the daemon's start and by its audit. Filters that no guest here needs are removed.
        """


def find(name: str) -> Any:
    """The class that a value of `firewall_driver` means: an alias, 2011.2's dotted name, or another's dotted class.

    Raises DriverConfigError naming the flag when there is no such thing.
    """
    return _class(name, ALIASES.get(name, name))


def load(conf: ConfigOpts, filters: FilterStore | None = None) -> FirewallDriver:
    """The firewall that `firewall_driver` names.

    Raises DriverConfigError naming the flag when there is no such thing, or it makes something else.
    """
    name: str = conf.firewall_driver
    made = find(name).from_conf(conf, filters)
    if not isinstance(made, FirewallDriver):
        raise DriverConfigError(f"firewall_driver = {name}: it makes a {type(made).__name__}, not a FirewallDriver")
    return made


def _class(name: str, dotted: str) -> Any:
    module_name, _, attribute = dotted.rpartition(".")
    if not module_name:
        names = ", ".join(alias for alias in ALIASES if "." not in alias)
        raise DriverConfigError(f"firewall_driver = {name}: neither one of {names} nor a dotted path")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as exc:
        raise DriverConfigError(f"firewall_driver = {name}: {exc}") from exc
    if not hasattr(found, "from_conf"):
        raise DriverConfigError(f"firewall_driver = {name}: it has no from_conf")
    return found
