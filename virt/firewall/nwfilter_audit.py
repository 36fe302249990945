"""What of a host's filters is not as it is to be: in libvirt, in the kernel, at the taps."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from virt.errors import DriverConfigError, FirewallError, ProcessError
from virt.execute import Execute
from virt.firewall.backstop import CHAIN, is_in_place
from virt.firewall.base import Drift
from virt.firewall.guard import Guarded
from virt.firewall.nwfilter_filters import tap_name
from virt.firewall.nwfilter_xml import Filter, FilterRef
from virt.firewall.rules import InstanceRules

_TIMEOUT_S = 60.0
_SEES_BRIDGES = ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables")
_SAVES = {4: "iptables-save", 6: "ip6tables-save"}
_ELEMENTS = {4: {"tcp", "udp", "icmp", "all"}, 6: {"tcp-ipv6", "udp-ipv6", "icmpv6", "all-ipv6"}}
_HALF_MADE = r"^-A (?:(?:PREROUTING -i|POSTROUTING -o) (\S+) -j libvirt-[JP]-\1|libvirt-[IO]-(\S+) .*-j [JP]-\2-\S+)$"
_OWN = re.compile(r"nova-(instance-.+|secgroup-\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """What the kernel filters by.

    taps: the interfaces that there are. inward: by family and tap, the rules of the chain that packets to the tap go
    through, in order. outward: taps whose packets go through libvirt's bridge rules. unheld: families in which the
    backstop is not there.
    """

    taps: frozenset[str]
    inward: Mapping[tuple[int, str], tuple[str, ...]]
    outward: frozenset[str]
    unheld: frozenset[int]


class Kind(Enum):
    """What is wrong with a tap: libvirt does not filter it, the kernel does not, it is not guarded, it is shut."""

    UNBOUND = "unbound"
    UNFILTERED = "unfiltered"
    UNGUARDED = "unguarded"
    SHUT = "shut"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A guest's tap that is not as it is to be, with the filter that it should have."""

    guest: str
    dev: str
    filter: str
    kind: Kind
    drift: Drift


def demand_bridged_traffic_is_seen(execute: Execute) -> None:
    """DriverConfigError when bridged packets would go past iptables, where libvirt's rules are."""
    for name in _SEES_BRIDGES:
        path = f"/proc/sys/net/bridge/{name}"
        try:
            value = execute(["cat", path], timeout_s=_TIMEOUT_S).strip()
        except ProcessError as exc:
            raise DriverConfigError(f"firewall_driver = nwfilter: needs the kernel's br_netfilter: {exc}") from exc
        if value != "1":
            raise DriverConfigError(f"firewall_driver = nwfilter: bridged packets would pass unseen: {path} is {value}")


def leftovers(there: Iterable[str], wanted: Mapping[str, Filter]) -> list[str]:
    """Filters of guests and groups that nobody here needs; those that refer to others first."""
    found = [name for name in there if _OWN.fullmatch(name) and name not in wanted]
    return sorted(found, key=lambda name: (name.startswith("nova-secgroup-"), name.endswith("-secgroup"), name))


def interfaces(execute: Execute) -> frozenset[str]:
    """The names of the host's interfaces. Raises FirewallError."""
    try:
        links = json.loads(execute(["ip", "-j", "link", "show"], timeout_s=_TIMEOUT_S))
    except ProcessError as exc:
        raise FirewallError(f"the host's interfaces cannot be listed: {exc}") from exc
    return frozenset(link["ifname"] for link in links)


def look(execute: Execute) -> Kernel:
    """The kernel's rules: a number of commands that does not grow with the guests. Raises FirewallError."""
    try:
        saved = {family: execute([save, "-t", "filter"], timeout_s=_TIMEOUT_S) for family, save in _SAVES.items()}
    except ProcessError as exc:
        raise FirewallError(f"the kernel's filters cannot be read: {exc}") from exc
    inward: dict[tuple[int, str], list[str]] = {}
    for family, text in saved.items():
        for dev in re.findall(r"^-A libvirt-out .*--physdev-out (\S+) .*-g FO-\1$", text, re.MULTILINE):
            inward[family, dev] = re.findall(rf"^-A FO-{re.escape(dev)} (.*)$", text, re.MULTILINE)
    return Kernel(
        taps=interfaces(execute),
        inward={key: tuple(rules) for key, rules in inward.items()},
        unheld=frozenset(family for family, text in saved.items() if not is_in_place(text)),
        outward=checked(execute),
    )


def checked(execute: Execute) -> frozenset[str]:
    """Taps whose packets go through libvirt's rules of the bridge, and these are whole. Raises FirewallError.

    While libvirt makes a tap's rules they have the names of J and P; what still has them then is half made, because
    ebtables failed, and is removed at the beginning of libvirt's next change.
    """
    try:
        bridged = execute(["ebtables-save"], timeout_s=_TIMEOUT_S)
    except ProcessError as exc:
        raise FirewallError(f"the kernel's filters cannot be read: {exc}") from exc
    whole = re.findall(r"^-A PREROUTING -i (\S+) -j libvirt-I-\1$", bridged, re.MULTILINE)
    half = re.findall(_HALF_MADE, bridged, re.MULTILINE)
    return frozenset(whole) - frozenset(tap for found in half for tap in found)


def unfiltered(kernel: Kernel, dev: str, filters: Mapping[str, Filter], name: str) -> str | None:
    """Why the kernel does not filter a tap as the filter called `name` says, in words; None when it does."""
    for family, elements in _ELEMENTS.items():
        rules = kernel.inward.get((family, dev))
        if rules is None:
            return f"the kernel does not filter its IPv{family}"
        if not rules or rules[-1] != "-j DROP":
            return f"its IPv{family} rules do not end with a drop"
        if len(rules) != (wanted := _count(filters, FilterRef(name=name), elements)):
            return f"the kernel has {len(rules)} IPv{family} rules for it, not {wanted}"
    return None if dev in kernel.outward else "the kernel does not check what it sends"


def backstop(kernel: Kernel) -> list[Drift]:
    """What is wrong with the chain that holds while libvirt changes its own."""
    problem = "is not what it is to be: a guest may be open while libvirt changes another's rules"
    return [Drift(what=f"IPv{family} chain {CHAIN}", problem=problem) for family in sorted(kernel.unheld)]


def faults(
    guests: Iterable[InstanceRules],
    filters: Mapping[str, Filter],
    bindings: Mapping[str, str],
    kernel: Kernel,
    held: Guarded,
) -> list[Fault]:
    """What is wrong with guests' taps; with one that is not there only that its name may not be guarded."""
    found = []
    for rules in guests:
        for tap in rules.taps:
            name = tap_name(rules.name, tap.mac)
            kind, problem = _fault(tap.dev, name, filters, bindings, kernel, held)
            if problem:
                opened = kind is not Kind.SHUT and tap.dev in kernel.taps
                opened &= tap.dev not in held.names or tap.dev in held.open
                drift = Drift(what=f"tap {tap.dev}", problem=problem, guest=rules.name, opened=opened)
                found.append(Fault(guest=rules.name, dev=tap.dev, filter=name, kind=kind, drift=drift))
    return found


def _fault(
    dev: str, name: str, filters: Mapping[str, Filter], bindings: Mapping[str, str], kernel: Kernel, held: Guarded
) -> tuple[Kind, str]:
    if dev not in kernel.taps:
        return Kind.UNGUARDED, "" if dev in held.names else "is not guarded"
    if bindings.get(dev) != name:
        return Kind.UNBOUND, f"libvirt filters it by {bindings.get(dev) or 'nothing'}, not by {name}"
    reason = unfiltered(kernel, dev, filters, name)
    if reason is not None:
        return Kind.UNFILTERED, reason
    if dev not in held.names:
        return Kind.UNGUARDED, "is not guarded"
    return Kind.SHUT, "" if dev in held.open else "is shut although it is filtered"


def _count(filters: Mapping[str, Filter], ref: FilterRef, elements: set[str]) -> int:
    """How many rules to a tap a filter comes to, those of the filters that it names included."""
    values: dict[str, int] = {}
    for key, _ in ref.parameters:
        values[key] = values.get(key, 0) + 1
    found, total = filters[ref.name], 0
    for rule in found.rules:
        if rule.direction == "in" and rule.element in elements:
            times = 1
            for key in {value[1:] for _, value in rule.match if value.startswith("$")}:
                times *= values.get(key, 1)
            total += times
    return total + sum(_count(filters, inner, elements) for inner in found.refs)
