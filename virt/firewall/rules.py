"""What one guest's filters admit, as data: pure, ordered, split by family. Every firewall driver renders this.

The verdict on a packet, first match wins. `tests/firewall_model.py` reads it aloud.

To a guest's tap:
1. a neighbour's question or answer (ARP; ICMPv6 135 and 136) is admitted;
2. a packet that connection tracking calls invalid is dropped, one of an established or related connection admitted;
3. what a provider rule denies is dropped;
4. a DHCP answer (udp, port 67 to 68) is admitted from the tap's DHCP servers, a DHCPv6 answer (udp, 547 to 546) and a
   router's advertisement (ICMPv6 134) from its routers; from elsewhere they are dropped;
5. what a project network, or a rule of one of the guest's groups, admits is admitted;
6. anything else is dropped, of whatever protocol.

From a guest's tap: what bears another MAC, another IP address or another ARP sender than the tap's, and what only a
server may send (the answers and advertisements of 4), is dropped; anything else is admitted, be it of no address yet
(an ARP probe, a DHCP question from 0.0.0.0 to 255.255.255.255, ICMPv6 133, 135 and 143 from ::). A VPN gateway's tap
(`is_vpn`) forwards for others, so what it sends is not checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from virt.spec import InstanceSpec, Rule, SecurityGroup, Vif

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

FAMILIES = (4, 6)
NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT, ROUTER_ADVERTISEMENT = 135, 136, 134
LINK_LOCAL = IPv6Network("fe80::/10")
_ALL_PORTS = (0, 65535)
_LARGEST_ICMP_TYPE = 254
_MEMBER_SETS = 16  # a guest's groups follow few others, and the next guest's mostly the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Packets of one family, by protocol and source.

    family: 4 or 6. protocol: tcp, udp, icmp (ICMPv6 when family is 6), or None for every protocol there is.
    ports: destination ports, inclusive; None for any. icmp_type, icmp_code: None for any, and a code has a type.
    source: a network of the same family. group_id: instead of it, the members of this group. Neither: from anywhere.
    """

    family: int
    protocol: str | None = None
    ports: tuple[int, int] | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    source: Network | None = None
    group_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class Members:
    """The addresses of a group's members, sorted and without repetition."""

    v4: tuple[IPv4Address, ...] = ()
    v6: tuple[IPv6Address, ...] = ()
    _texts: dict[int, frozenset[str]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def of(self, family: int) -> tuple[Address, ...]:
        """Those of one family."""
        return self.v4 if family == 4 else self.v6

    def texts(self, family: int) -> frozenset[str]:
        """Those of one family as text, which is made once."""
        if family not in self._texts:
            self._texts[family] = frozenset(map(str, self.of(family)))
        return self._texts[family]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRules:
    """What one security group lets in, v4 before v6, without repetition."""

    id: int
    ingress: tuple[Match, ...] = ()

    @property
    def follows(self) -> frozenset[int]:
        """The groups whose members this one lets in."""
        return frozenset(match.group_id for match in self.ingress if match.group_id is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class TapRules:
    """What one interface may be, and what its network gives it.

    addresses: what the guest may call itself; those of v6 include the link-local one of its MAC. dhcp_servers:
    who may answer DHCP. ra_sources: who may advertise routes and answer DHCPv6. project_networks: sources admitted
    with every protocol and port. is_vpn: this guest is the project's VPN gateway.
    """

    dev: str
    mac: str
    bridge: str = ""
    addresses: tuple[IPv4Address, ...] = ()
    addresses_v6: tuple[IPv6Address, ...] = ()
    dhcp_servers: tuple[IPv4Address, ...] = ()
    ra_sources: tuple[IPv6Network, ...] = ()
    project_networks: tuple[Network, ...] = ()
    is_vpn: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRules:
    """Everything that the filters of one guest are made of. members: of every group that a rule here follows."""

    id: int
    name: str
    taps: tuple[TapRules, ...] = ()
    groups: tuple[GroupRules, ...] = ()
    members: Mapping[int, Members] = field(default_factory=dict)

    def ingress(self, family: int) -> tuple[Match, ...]:
        """What the guest's groups together let in, of one family, in order and without repetition."""
        found = (match for group in self.groups for match in group.ingress if match.family == family)
        return tuple(dict.fromkeys(found))


def instance_rules(
    spec: InstanceSpec, *, allow_project_net_traffic: bool = False, vpn_image_id: str = ""
) -> InstanceRules:
    """The rules of one guest, from its spec and the flags of these names."""
    is_vpn = spec.image is not None and str(spec.image.id) == vpn_image_id
    groups = tuple(group_rules(group) for group in sorted(spec.security_groups, key=lambda one: one.id))
    known = {key: found for group in spec.security_groups for key, found in group.members.items()}
    followed = sorted({one for group in groups for one in group.follows})
    return InstanceRules(
        id=spec.id,
        name=spec.name,
        taps=tuple(_tap(vif, allow_project_net_traffic, is_vpn) for vif in spec.vifs),
        groups=groups,
        members={group_id: member_set(known.get(group_id, ())) for group_id in followed},
    )


def group_rules(group: SecurityGroup) -> GroupRules:
    """What one group lets in."""
    found = dict.fromkeys(match for rule in group.rules for match in matches(rule))
    return GroupRules(id=group.id, ingress=tuple(sorted(found, key=lambda match: match.family)))


def matches(rule: Rule) -> tuple[Match, ...]:
    """A rule as matches: one of its cidr's family, or one of each family when it follows a group.

    ICMP type 255 is reserved and matches nothing; to iptables it would be every type.
    """
    if rule.protocol == "icmp" and rule.from_port > _LARGEST_ICMP_TYPE:
        return ()
    if rule.group_id is not None:
        return tuple(_match(rule, family, None) for family in FAMILIES)
    source = ip_network(rule.cidr or "0.0.0.0/0")
    return (_match(rule, source.version, None if source.prefixlen == 0 else source),)


def provider_denies(rules: Iterable[Mapping[str, str]]) -> tuple[Match, ...]:
    """The provider's deny rules (keys protocol, from_port, to_port, cidr), v4 before v6, without repetition."""
    found: dict[Match, None] = {}
    for rule in rules:
        protocol = rule.get("protocol") or "any"
        low, high = int(rule.get("from_port", -1)), int(rule.get("to_port", -1))
        plain = Rule(protocol=None if protocol == "any" else protocol, from_port=low, to_port=high, cidr=rule["cidr"])
        found.update(dict.fromkeys(matches(plain)))
    return tuple(sorted(found, key=lambda match: match.family))


def member_set(addresses: Sequence[str]) -> Members:
    """Addresses, by family."""
    return _member_set(tuple(addresses))


@lru_cache(maxsize=_MEMBER_SETS)
def _member_set(addresses: tuple[str, ...]) -> Members:
    parsed = {ip_address(address) for address in addresses}
    return Members(
        v4=tuple(sorted(one for one in parsed if isinstance(one, IPv4Address))),
        v6=tuple(sorted(one for one in parsed if isinstance(one, IPv6Address))),
    )


def link_local(mac: str) -> IPv6Address:
    """The address that an interface gives itself (RFC 4291, modified EUI-64)."""
    octets = [int(octet, 16) for octet in mac.split(":")]
    eui = bytes([octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]])
    return IPv6Address(int(IPv6Address("fe80::")) | int.from_bytes(eui, "big"))


def _match(rule: Rule, family: int, source: Network | None) -> Match:
    if rule.protocol == "icmp":
        kind = rule.from_port if rule.from_port >= 0 else None
        code = rule.to_port if kind is not None and rule.to_port >= 0 else None
        return Match(
            family=family, protocol="icmp", icmp_type=kind, icmp_code=code, source=source, group_id=rule.group_id
        )
    ports = (rule.from_port, rule.to_port)
    wide = rule.protocol is None or rule.from_port < 0 or ports == _ALL_PORTS
    return Match(
        family=family, protocol=rule.protocol, ports=None if wide else ports, source=source, group_id=rule.group_id
    )


def _tap(vif: Vif, allow_project_net_traffic: bool, is_vpn: bool) -> TapRules:
    network = vif.network
    own_v6 = tuple(address.ip for address in vif.addresses_v6)
    networks = [network.cidr, network.cidr_v6] if allow_project_net_traffic else []
    return TapRules(
        dev=vif.dev,
        mac=vif.mac.lower(),
        bridge=vif.bridge,
        addresses=tuple(address.ip for address in vif.addresses),
        addresses_v6=(*own_v6, link_local(vif.mac)) if own_v6 else (),
        dhcp_servers=(server,) if (server := network.dhcp_server or network.gateway) else (),
        ra_sources=_ra_sources(network.gateway_v6) if network.cidr_v6 else (),
        project_networks=tuple(ip_network(one) for one in networks if one),
        is_vpn=is_vpn,
    )


def _ra_sources(gateway: IPv6Address | None) -> tuple[IPv6Network, ...]:
    """A router advertises from its link-local address: that of the gateway when it is one, else any that is no tap's.

    No guest's advertisement gets as far as another tap: it is dropped where it enters.
    """
    if gateway is not None and gateway in LINK_LOCAL:
        return (IPv6Network(gateway),)
    return (LINK_LOCAL,)
