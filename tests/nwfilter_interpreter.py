"""What libvirt makes of network filters, packet by packet: an interpreter of their XML that knows nothing of how it is
rendered.

Bridge rules (mac, arp, ip, ipv6) come first: those of the chains mac, ipv4, ipv6 and arp, in this order, then those of
root. Then what goes to a guest passes the rules of tcp, udp, icmp and all: those of root filters by priority, then the
others'. What no rule decides passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from itertools import product
from typing import Any

from lxml import etree

from tests.firewall_model import IN, Packet

_BRIDGE = {"mac", "arp", "ip", "ipv6"}
_CHAINS = {"mac": None, "ipv4": ("ipv4",), "ipv6": ("ipv6",), "arp": ("arp",)}
_ROUTED = {
    "tcp": (4, "tcp"), "udp": (4, "udp"), "icmp": (4, "icmp"), "all": (4, None),
    "tcp-ipv6": (6, "tcp"), "udp-ipv6": (6, "udp"), "icmpv6": (6, "icmp"), "all-ipv6": (6, None),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Rule:
    chain: str
    priority: int
    action: str
    direction: str
    element: str
    match: Mapping[str, str]


class FilteredTap:
    """A tap with this MAC that is filtered by the filter `name`; `filters`: XML by name."""

    def __init__(self, filters: Mapping[str, str], name: str, mac: str) -> None:
        rules = list(_expanded(filters, name, {"MAC": [mac]}))
        self._bridge = [rule for rule in rules if rule.element in _BRIDGE]
        self._routed = sorted(
            (rule for rule in rules if rule.element in _ROUTED and rule.direction == IN),
            key=lambda rule: (rule.chain != "root", rule.priority),
        )

    def admits(self, packet: Packet) -> bool:
        """The verdict on a packet."""
        if not _passes_the_bridge(self._bridge, packet):
            return False
        if packet.direction != IN or packet.protocol == "arp":
            return True
        return next((rule.action == "accept" for rule in self._routed if _is_routed_match(rule, packet)), True)


def _expanded(filters: Mapping[str, str], name: str, variables: Mapping[str, list[str]]) -> Iterator[_Rule]:
    root = etree.fromstring(filters[name].encode())
    for ref in root.findall("filterref"):
        given: dict[str, list[str]] = {}
        for one in ref.findall("parameter"):
            given.setdefault(one.get("name"), []).append(one.get("value"))
        yield from _expanded(filters, ref.get("filter"), {**variables, **given})
    for element in root.findall("rule"):
        yield from _instances(root.get("chain", "root"), element, variables)


def _instances(chain: str, element: Any, variables: Mapping[str, list[str]]) -> Iterator[_Rule]:
    """A rule once for each of the values of the variables in it."""
    (match,) = list(element)
    used = sorted({value[1:] for value in match.attrib.values() if value.startswith("$")})
    for values in product(*(variables[name] for name in used)):
        known = dict(zip(used, values, strict=True))
        attributes = {key: known.get(value[1:], value) for key, value in match.attrib.items()}
        place = chain, int(element.get("priority", "500")), element.get("action"), element.get("direction")
        yield _Rule(*place, match.tag, attributes)


def _passes_the_bridge(rules: list[_Rule], packet: Packet) -> bool:
    kind = "arp" if packet.protocol == "arp" else f"ipv{packet.family}"
    for chain, kinds in (*_CHAINS.items(), ("root", None)):
        if kinds is not None and kind not in kinds:
            continue
        mine = sorted((rule for rule in rules if rule.chain == chain), key=lambda rule: rule.priority)
        verdict = _first(mine, packet)
        if verdict == "drop":
            return False
        if verdict == "accept":
            return True
    return True


def _first(rules: Iterable[_Rule], packet: Packet) -> str | None:
    return next((rule.action for rule in rules if _is_bridge_match(rule, packet)), None)


def _is_bridge_match(rule: _Rule, packet: Packet) -> bool:
    if rule.direction not in {"inout", packet.direction}:
        return False
    given = dict(rule.match)
    is_negated = given.pop("match", "yes") == "no"
    facts = _facts(packet)
    if rule.element in {"ip", "ipv6"} and facts["protocolid"] != {"ip": "ipv4", "ipv6": "ipv6"}[rule.element]:
        return False
    found = all(_same(facts.get(key), value) for key, value in given.items())
    return found is not is_negated


def _facts(packet: Packet) -> dict[str, str]:
    is_arp, number = packet.protocol == "arp", "icmpv6" if packet.family == 6 else "icmp"
    return {
        "protocolid": "arp" if is_arp else f"ipv{packet.family}",
        "protocol": number if packet.protocol == "icmp" else packet.protocol,
        "srcmacaddr": packet.mac, "arpsrcmacaddr": packet.mac,
        "srcipaddr": packet.source, "arpsrcipaddr": packet.source, "dstipaddr": packet.dest,
        "srcportstart": str(packet.sport), "dstportstart": str(packet.dport), "type": str(packet.icmp_type),
    }  # fmt: skip


def _same(fact: str | None, wanted: str) -> bool:
    if fact is None or ":" not in wanted or wanted.count(":") == 5:
        return fact == wanted
    return ip_address(fact) == ip_address(wanted)


def _is_routed_match(rule: _Rule, packet: Packet) -> bool:
    family, protocol = _ROUTED[rule.element]
    if family != packet.family or protocol not in {None, packet.protocol}:
        return False
    given = rule.match
    if given["state"] != "NONE" and packet.state not in given["state"].split(","):
        return False
    if "srcipaddr" in given:
        mask = given.get("srcipmask", "32" if family == 4 else "128")
        if ip_address(packet.source) not in ip_network(f"{given['srcipaddr']}/{mask}"):
            return False
    wanted = (("type", packet.icmp_type), ("code", packet.icmp_code))
    if any(key in given and int(given[key]) != fact for key, fact in wanted):
        return False
    return _in_ports(given, "src", packet.sport) and _in_ports(given, "dst", packet.dport)


def _in_ports(given: Mapping[str, str], side: str, port: int) -> bool:
    if f"{side}portstart" not in given:
        return True
    return int(given[f"{side}portstart"]) <= port <= int(given[f"{side}portend"])
