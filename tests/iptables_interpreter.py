"""What iptables does with a packet, read from its rules: independent of the code that writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address as parse_address
from ipaddress import ip_network as parse_network

from tests.firewall_model import Packet

ip_address, ip_network = cache(parse_address), cache(parse_network)
_PROTOCOLS = {"ipv6-icmp": "icmp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """How a packet gets to a tap: bridged from another port of its bridge, or from this host's own routing."""

    dev: str
    bridge: str
    bridged: bool

    @property
    def hook(self) -> str:
        return "FORWARD" if self.bridged else "OUTPUT"


class Table:
    """One family's filter table, and the sets that its rules name."""

    def __init__(self, chains: Mapping[str, Sequence[str]], sets: Mapping[str, set[str]]) -> None:
        self._chains, self._sets = chains, sets

    def admits(self, packet: Packet, path: Path) -> bool:
        """True when a packet is accepted and bears the mark; one that no rule decides is accepted without it."""
        marked: list[str] = []
        verdict = self._walk(path.hook, packet, path, marked)
        return verdict != "DROP" and bool(marked)

    def _walk(self, chain: str, packet: Packet, path: Path, marked: list[str]) -> str | None:
        for rule in self._chains[chain]:
            words = rule.split()
            if not self._matches(words, packet, path, marked):
                continue
            jump = "-g" if "-g" in words else "-j"
            target = words[words.index(jump) + 1]
            if target == "MARK":
                marked[:] = [] if words[-1].startswith("0x0/") else [words[-1]]
                continue
            verdict = target if target in {"ACCEPT", "DROP"} else self._walk(target, packet, path, marked)
            if verdict is not None or jump == "-g":
                return verdict
        return None

    def _matches(self, words: list[str], packet: Packet, path: Path, marked: list[str]) -> bool:
        if "--mark" in words and not marked:
            return False
        if "--physdev-is-bridged" in words and path.bridged == ("!" in words):
            return False
        words = [word for word in words if word not in {"!", "--physdev-is-bridged"}]
        place = 0
        while words[place] not in {"-j", "-g"}:
            flag, value = words[place], words[place + 1]
            if flag == "--match-set":
                assert words[place + 2] == ("src,dst" if value.startswith("nova-r") else "src"), words
                place += 1
            place += 2
            if not self._match(flag, value, packet, path):
                return False
        return True

    def _match(self, flag: str, value: str, packet: Packet, path: Path) -> bool:
        if flag in {"-m", "--mark"}:
            return True
        if flag == "--match-set":
            return any(_is_element(packet, *element.partition(",")) for element in self._sets[value])
        if flag in {"-o", "--physdev-out"}:
            return _is_device(value, path.bridge if flag == "-o" else path.dev)
        if flag in {"-s", "-d"}:
            return _is_within(packet.source if flag == "-s" else packet.dest, value)
        return _OF_PACKET[flag](value, packet)


def rules_reached(chains: Mapping[str, Sequence[str]], name: str) -> int:
    """The rules in a chain and in those that it leads to, each as often as there are ways to it."""
    targets = (word for rule in chains.get(name, ()) for word in rule.split()[-1:])
    return len(chains.get(name, ())) + sum(rules_reached(chains, target) for target in targets)


def rules_reached_once(chains: Mapping[str, Sequence[str]], name: str) -> int:
    """The same, each rule once however many ways lead to it."""
    seen, coming = set[str](), [name]
    while coming:
        one = coming.pop()
        if one in chains and one not in seen:
            seen.add(one)
            coming += [rule.split()[-1] for rule in chains[one]]
    return sum(len(chains[one]) for one in seen)


def _is_device(pattern: str, dev: str) -> bool:
    return dev.startswith(pattern[:-1]) if pattern.endswith("+") else dev == pattern


def _is_within(address: str, pattern: str) -> bool:
    network, _, mask = pattern.partition("/")
    if mask.isdecimal():
        return ip_address(address) in ip_network(pattern)
    return int(ip_address(address)) & int(ip_address(mask)) == int(ip_address(network))


def _is_element(packet: Packet, network: str, _: str, port: str) -> bool:
    """A network, and a protocol and a port where the set's elements have them."""
    return ip_address(packet.source) in ip_network(network) and port in {"", f"{packet.protocol}:{packet.dport}"}


def _has_port(value: str, port: int) -> bool:
    low, _, high = value.partition(":")
    return int(low) <= port <= int(high or low)


def _has_type(value: str, packet: Packet) -> bool:
    kind, _, code = value.partition("/")
    return packet.icmp_type == int(kind) and (not code or packet.icmp_code == int(code))


_OF_PACKET = {
    "-p": lambda value, packet: packet.protocol == _PROTOCOLS.get(value, value),
    "--ctstate": lambda value, packet: packet.state in value.split(","),
    "--sport": lambda value, packet: _has_port(value, packet.sport),
    "--dport": lambda value, packet: _has_port(value, packet.dport),
    "--icmp-type": _has_type,
    "--icmpv6-type": _has_type,
}
