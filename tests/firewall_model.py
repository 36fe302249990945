"""What a guest's filters are to admit, packet by packet: an interpreter of virt.firewall.rules, independent of any
driver.

Tests render rules with a driver, evaluate what was rendered, and compare with `admits`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from virt.firewall.rules import InstanceRules, Match, TapRules

NEW, ESTABLISHED, RELATED, INVALID = "NEW", "ESTABLISHED", "RELATED", "INVALID"
IN, OUT = "in", "out"
LOOKING_FOR_AN_ADDRESS = frozenset({133, 135, 143})  # router and neighbour solicitation, multicast listener report


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """A packet at a guest's tap. direction: `in` is towards the guest.

    protocol: tcp, udp, icmp (ICMPv6 when the addresses are), arp, or the number of another protocol as text. mac: of
    the sender. For arp, source is the sender's address in the packet and mac the sender's hardware address.
    """

    direction: str
    protocol: str
    source: str
    dest: str
    mac: str = "02:16:3e:ff:ff:ff"
    sport: int = 40000
    dport: int = 0
    icmp_type: int = 8
    icmp_code: int = 0
    state: str = NEW

    @property
    def family(self) -> int:
        return ip_address(self.source).version


def admits(rules: InstanceRules, tap: TapRules, packet: Packet, denies: Sequence[Match] = ()) -> bool:
    """The verdict on a packet at `tap` of the guest with these rules."""
    if packet.direction == OUT:
        return tap.is_vpn or _may_leave(tap, packet)
    if _is_neighbour_talk(packet):
        return True
    if packet.state != NEW:
        return packet.state in {ESTABLISHED, RELATED}
    if any(_matches(rules, match, packet) for match in denies):
        return False
    return _may_serve(tap, packet) if _is_of_a_server(packet) else _may_enter(rules, tap, packet)


def _may_enter(rules: InstanceRules, tap: TapRules, packet: Packet) -> bool:
    if any(ip_address(packet.source) in network for network in tap.project_networks):
        return True
    return any(_matches(rules, match, packet) for group in rules.groups for match in group.ingress)


def _may_serve(tap: TapRules, packet: Packet) -> bool:
    if packet.family == 4:
        return ip_address(packet.source) in tap.dhcp_servers
    return any(ip_address(packet.source) in network for network in tap.ra_sources)


def _may_leave(tap: TapRules, packet: Packet) -> bool:
    source = ip_address(packet.source)
    if packet.mac.lower() != tap.mac or _is_of_a_server(packet):
        return False
    if source == IPv4Address(0):
        return packet.protocol == "arp" or (_asks_dhcp(packet) and packet.dest == "255.255.255.255")
    if source == IPv6Address(0):
        return packet.protocol == "icmp" and packet.icmp_type in LOOKING_FOR_AN_ADDRESS
    return source in tap.addresses or source in tap.addresses_v6


def _matches(rules: InstanceRules, match: Match, packet: Packet) -> bool:
    if match.family != packet.family or match.protocol not in {None, packet.protocol}:
        return False
    if match.ports is not None and not match.ports[0] <= packet.dport <= match.ports[1]:
        return False
    if match.icmp_type is not None and match.icmp_type != packet.icmp_type:
        return False
    if match.icmp_code is not None and match.icmp_code != packet.icmp_code:
        return False
    source = ip_address(packet.source)
    if match.group_id is not None:
        return source in rules.members[match.group_id].of(packet.family)
    return match.source is None or source in match.source


def _is_neighbour_talk(packet: Packet) -> bool:
    if packet.protocol == "arp":
        return True
    return packet.family == 6 and packet.protocol == "icmp" and packet.icmp_type in {135, 136}


def _is_of_a_server(packet: Packet) -> bool:
    if packet.protocol == "udp":
        return (packet.sport, packet.dport) == ((67, 68) if packet.family == 4 else (547, 546))
    return packet.family == 6 and packet.protocol == "icmp" and packet.icmp_type == 134


def _asks_dhcp(packet: Packet) -> bool:
    return packet.family == 4 and packet.protocol == "udp" and (packet.sport, packet.dport) == (68, 67)
