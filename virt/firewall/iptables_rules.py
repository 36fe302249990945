"""A guest's rules as iptables chains: pure, and letter for letter as iptables-save prints them.

A chain is a tuple of rules without `-A <chain>`.

    FORWARD -> top -> bridged -> dev-<digit> -> inst-<id> -> net-<digest> -> common (neighbours, connections, the
                   -> local   -> ip-<digit>  ->                              provider's denies, the mark)
    OUTPUT  --------> local                                               -> servers and project networks
                                                          -> sg-<group> ...
                                                          -> DROP

What admits is the mark and ACCEPT together. The common chain marks what a guest's is about to decide on, and no packet
leaves that but by ACCEPT or by the DROP that it ends with; so a rule that admits is one rule. A guest of several taps
has a chain for each before its own: their networks differ.

The kernel looks at every rule at every change, so guests have few of their own. What a network tells its guests is one
chain for all of them. A group's ordinary rules (tcp or udp, a few ports, from a network) are elements of a set, and
one rule asks for it: to edit them changes no chain at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network

from virt.firewall import iptables_names as names
from virt.firewall.iptables_names import DROP
from virt.firewall.rules import (
    FAMILIES,
    ROUTER_ADVERTISEMENT,
    Address,
    GroupRules,
    InstanceRules,
    Match,
    TapRules,
)

Chain = tuple[str, ...]
Chains = Mapping[str, Chain]

_ORDINARY_PORTS = 16
"""As many ports a rule may have to be ordinary: each is an element, or two when it is for everybody."""

_ANY_ICMP = 255
"""What iptables takes for every ICMP type there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """One guest as one family of iptables has it.

    chains: its own. lines: what it has in chains that all share. shared: the chains that it shares with its groups'
    other members, and with who is on its networks. sets: what its groups' ordinary rules admit, and the members of the
    groups that the others follow, as text.
    """

    chains: Chains
    lines: Mapping[str, Chain]
    shared: Chains
    sets: Mapping[str, frozenset[str]]


NO_GUEST = Guest(chains={}, lines={}, shared={}, sets={})


def marking(mark: int) -> str:
    """The rule that marks; `mark` is the bit of the packet mark without which the bridge hands nothing to a tap."""
    return f"-j MARK --set-xmark {mark:#x}/{mark:#x}"


def guest(rules: InstanceRules, family: int) -> Guest:
    """Everything that one guest needs in the filter table of one family: nothing, if it has no network of IPv6."""
    if family == 6 and not any(map(_speaks_v6, rules.taps)):
        return NO_GUEST
    nets = [_of_network(tap, family) for tap in rules.taps]
    doors = [f"-j {names.network_chain(net)}" for net in nets]
    groups = {names.group_chain(group.id): _of_group(group, family) for group in rules.groups}
    last = (*(f"-j {name}" for name in sorted(groups)), "-j DROP")
    instance = names.instance_chain(rules.id)
    if len(rules.taps) == 1:
        own = {instance: (*doors, *last)}
        firsts = [instance]
    else:
        firsts = [names.tap_chain(tap.dev) for tap in rules.taps]
        own = {first: (door, f"-g {instance}") for first, door in zip(firsts, doors, strict=True)}
        own[instance] = last
    lines: dict[str, list[str]] = {}
    for tap, first in zip(rules.taps, firsts, strict=True):
        for chain, line in _lines(tap, first, family):
            lines.setdefault(chain, []).append(line)
    return Guest(
        chains=own,
        lines={chain: tuple(found) for chain, found in lines.items()},
        shared=groups | {names.network_chain(net): net for net in nets},
        sets=_member_sets(rules, family) | _rule_sets(rules, family),
    )


def _member_sets(rules: InstanceRules, family: int) -> dict[str, frozenset[str]]:
    """The members that the guest's rules of one family follow, by set."""
    matches = [match for match in rules.ingress(family) if match.icmp_type != _ANY_ICMP]
    followed = {match.group_id for match in matches if match.group_id is not None}
    return {names.member_set(group_id, family): rules.members[group_id].texts(family) for group_id in followed}


def _rule_sets(rules: InstanceRules, family: int) -> dict[str, frozenset[str]]:
    """What the ordinary rules of the guest's groups let in, by set: one for each group, be it empty."""
    return {
        names.rule_set(group.id, family): frozenset(
            element for match in _of_family(group, family) if _is_ordinary(match) for element in _elements(match)
        )
        for group in rules.groups
    }


def provider_chain(denies: tuple[Match, ...], family: int) -> Chain:
    """What the provider denies to every guest."""
    return tuple(line for match in denies if match.family == family for line in _rule(match, DROP))


def _speaks_v6(tap: TapRules) -> bool:
    """True where a packet of IPv6 may be for the tap: its network has addresses or routers, or it forwards for all."""
    has_network = any(net.version == 6 for net in tap.project_networks)
    return bool(tap.addresses_v6 or tap.ra_sources or tap.is_vpn or has_network)


def _of_network(tap: TapRules, family: int) -> Chain:
    """What holds for packets to one tap, before the guest's groups are asked."""
    served = _dhcp(tap) if family == 4 else _routers(tap)
    nets = [net for net in tap.project_networks if net.version == family]
    projects = [f"-s {net} -j ACCEPT" for net in nets]
    if any(not net.prefixlen for net in nets):
        projects = ["-j ACCEPT"]
    return (f"-j {names.COMMON}", *served, *projects)


def _of_group(group: GroupRules, family: int) -> Chain:
    others = [match for match in _of_family(group, family) if not _is_ordinary(match)]
    ordinary = f"-m set --match-set {names.rule_set(group.id, family)} src,dst -j ACCEPT"
    return (ordinary, *(line for match in others for line in _rule(match, "ACCEPT")))


def _of_family(group: GroupRules, family: int) -> list[Match]:
    return [match for match in group.ingress if match.family == family]


def _is_ordinary(match: Match) -> bool:
    """True for what a set of networks and ports can say."""
    if match.group_id is not None or match.ports is None:
        return False
    low, high = match.ports
    return high - low < _ORDINARY_PORTS


def _elements(match: Match) -> list[str]:
    """An ordinary rule as elements, as ipset prints them: none is for everybody, so that is two halves."""
    everybody = ("0.0.0.0/1", "128.0.0.0/1") if match.family == 4 else ("::/1", "8000::/1")
    sources = everybody if match.source is None or not match.source.prefixlen else (names.network(match.source),)
    low, high = match.ports or (0, -1)
    return [f"{source},{match.protocol}:{port}" for source in sources for port in range(low, high + 1)]


def _lines(tap: TapRules, chain: str, family: int) -> list[tuple[str, str]]:
    """By device for what the bridge hands to the tap; by address for what this host sends or routes into the bridge."""
    found = [
        (names.device_dispatch(tap.dev), f"-m physdev --physdev-out {tap.dev} --physdev-is-bridged -g {chain}"),
    ]
    addresses: tuple[Address, ...] = tap.addresses if family == 4 else tap.addresses_v6
    for address in dict.fromkeys(addresses):
        line = f"-d {ip_network(address)} -o {tap.bridge} -g {chain}"
        found.append((names.address_dispatch(str(address)), line))
    return found


def _dhcp(tap: TapRules) -> list[str]:
    answer = "-p udp -m udp --sport 67 --dport 68"
    return [f"-s {ip_network(one)} {answer} -j ACCEPT" for one in tap.dhcp_servers] + [f"{answer} -j DROP"]


def _routers(tap: TapRules) -> list[str]:
    told = f"-p ipv6-icmp -m icmp6 --icmpv6-type {ROUTER_ADVERTISEMENT}"
    answer = "-p udp -m udp --sport 547 --dport 546"
    admitted = [f"-s {source} {what} -j ACCEPT" for source in tap.ra_sources for what in (told, answer)]
    return [*admitted, f"{told} -j DROP", f"{answer} -j DROP"]


def _rule(match: Match, target: str) -> list[str]:
    """One match as a rule; none for the ICMP type that iptables reads as every type (255, which nobody sends)."""
    if match.icmp_type == _ANY_ICMP:
        return []
    words = [f"-s {match.source}"] if match.source is not None and match.source.prefixlen else []
    if match.protocol is not None:
        words.append(f"-p {_protocol(match)}")
    if match.group_id is not None:
        words.append(f"-m set --match-set {names.member_set(match.group_id, match.family)} src")
    if match.ports is not None:
        low, high = match.ports
        words.append(f"-m {match.protocol} --dport {low if low == high else f'{low}:{high}'}")
    if match.icmp_type is not None:
        code = "" if match.icmp_code is None else f"/{match.icmp_code}"
        module = "icmp --icmp-type" if match.family == 4 else "icmp6 --icmpv6-type"
        words.append(f"-m {module} {match.icmp_type}{code}")
    return [" ".join([*words, f"-j {target}"])]


def _protocol(match: Match) -> str:
    return "ipv6-icmp" if match.protocol == "icmp" and match.family == 6 else str(match.protocol)


def both(rules: InstanceRules) -> dict[int, Guest]:
    """A guest in both families."""
    return {family: guest(rules, family) for family in FAMILIES}
