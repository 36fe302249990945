"""A guest's rules as iptables chains: pure, and letter for letter as iptables-save prints them.

A chain is a tuple of rules without `-A <chain>`.

    FORWARD -> top -> bridged -> dev-<digit> -> inst-<id> -> common (neighbours, connections, the provider's denies)
                   -> local   -> ip-<digit>  ->           -> the mark; servers and project networks; sg-<group> ...
    OUTPUT  --------> local                               -> DROP

What admits is the mark and ACCEPT together. A guest's chain marks what it is about to decide on, and no packet leaves
it but by ACCEPT or by the DROP that it ends with; so a rule that admits is one rule, not a way to a chain of two, which
the kernel would walk again at every change. A guest of several taps has a chain for each before its own: their networks
differ.
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

_ANY_ICMP = 255
"""What iptables takes for every ICMP type there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """One guest as one family of iptables has it.

    chains: its own. lines: what it has in chains that all share. groups: the chains that it shares with its groups'
    other members. sets: the members of the groups that those follow, as text.
    """

    chains: Chains
    lines: Mapping[str, Chain]
    groups: Chains
    sets: Mapping[str, frozenset[str]]


_NOTHING = Guest(chains={}, lines={}, groups={}, sets={})


def marking(mark: int) -> str:
    """The rule that marks; `mark` is the bit of the packet mark without which the bridge hands nothing to a tap."""
    return f"-j MARK --set-xmark {mark:#x}/{mark:#x}"


def guest(rules: InstanceRules, family: int, mark: int) -> Guest:
    """Everything that one guest needs in the filter table of one family: nothing, if it has no network of IPv6."""
    if family == 6 and not any(map(_speaks_v6, rules.taps)):
        return _NOTHING
    groups = {names.group_chain(group.id): _of_group(group, family) for group in rules.groups}
    last = (*(f"-j {name}" for name in sorted(groups)), "-j DROP")
    instance = names.instance_chain(rules.id)
    if len(rules.taps) == 1:
        own = {instance: (*_of_network(rules.taps[0], family, mark), *last)}
        doors = [instance]
    else:
        chains = {names.tap_chain(tap.dev): (*_of_network(tap, family, mark), f"-g {instance}") for tap in rules.taps}
        own, doors = {instance: last} | chains, list(chains)
    lines: dict[str, list[str]] = {}
    for tap, door in zip(rules.taps, doors, strict=False):
        for chain, line in _lines(tap, door, family):
            lines.setdefault(chain, []).append(line)
    return Guest(
        chains=own,
        lines={chain: tuple(found) for chain, found in lines.items()},
        groups=groups,
        sets=member_sets(rules, family),
    )


def member_sets(rules: InstanceRules, family: int) -> dict[str, frozenset[str]]:
    """The members that the guest's rules of one family follow, by set."""
    matches = [match for match in rules.ingress(family) if match.icmp_type != _ANY_ICMP]
    followed = {match.group_id for match in matches if match.group_id is not None}
    return {names.member_set(group_id, family): rules.members[group_id].texts(family) for group_id in followed}


def provider_chain(denies: tuple[Match, ...], family: int) -> Chain:
    """What the provider denies to every guest."""
    return tuple(line for match in denies if match.family == family for line in _rule(match, DROP))


def _speaks_v6(tap: TapRules) -> bool:
    """True where a packet of IPv6 may be for the tap: its network has addresses or routers, or it forwards for all."""
    has_network = any(net.version == 6 for net in tap.project_networks)
    return bool(tap.addresses_v6 or tap.ra_sources or tap.is_vpn or has_network)


def _of_network(tap: TapRules, family: int, mark: int) -> Chain:
    """What holds for packets to one tap, before the guest's groups are asked."""
    served = _dhcp(tap) if family == 4 else _routers(tap)
    nets = [net for net in tap.project_networks if net.version == family]
    projects = [f"-s {net} -j ACCEPT" for net in nets]
    if any(not net.prefixlen for net in nets):
        projects = ["-j ACCEPT"]
    return (f"-j {names.COMMON}", marking(mark), *served, *projects)


def _of_group(group: GroupRules, family: int) -> Chain:
    return tuple(line for match in group.ingress if match.family == family for line in _rule(match, "ACCEPT"))


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


def both(rules: InstanceRules, mark: int) -> dict[int, Guest]:
    """A guest in both families."""
    return {family: guest(rules, family, mark) for family in FAMILIES}
