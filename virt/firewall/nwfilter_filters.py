"""Rules as libvirt network filters, by 2011.2's names.

libvirt makes ebtables rules of mac, arp, ip and ipv6 matches, and iptables rules of tcp, udp, icmp and all. An iptables
rule with a `state` stands for one direction only; without one libvirt adds its reverse, which would let in what nobody
asked for. So every rule here names one; NONE is any. Rules of root filters come before those of other chains,
whatever their priority.

In-direction priorities: 80 neighbours, 90 and 100 connection state, 150 provider's denies, 160 DHCP and routers,
170 the rest of their kind, 200 project networks, 300 security groups, 400 drop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses

from virt.firewall.nwfilter_xml import Filter, FilterRef, FilterRule, ref, rule
from virt.firewall.rules import (
    NEIGHBOUR_ADVERTISEMENT,
    NEIGHBOUR_SOLICITATION,
    ROUTER_ADVERTISEMENT,
    GroupRules,
    InstanceRules,
    Match,
    Members,
    Network,
    TapRules,
)

PREFIX = "nova-"
PROVIDER = "nova-provider"
_ELEMENTS = {
    4: {"tcp": "tcp", "udp": "udp", "icmp": "icmp", None: "all"},
    6: {"tcp": "tcp-ipv6", "udp": "udp-ipv6", "icmp": "icmpv6", None: "all-ipv6"},
}
_LOOKING_FOR_AN_ADDRESS = (133, 135, 143)


def group_name(group_id: int) -> str:
    """The filter with a security group's rules."""
    return f"nova-secgroup-{group_id}"


def instance_group_name(name: str) -> str:
    """The filter with all groups of a guest."""
    return f"nova-instance-{name}-secgroup"


def tap_name(name: str, mac: str) -> str:
    """The filter that an interface of a guest names."""
    return f"nova-instance-{name}-{mac.lower().replace(':', '')}"


def tap_filter(rules: InstanceRules, tap: TapRules) -> Filter:
    """What an interface of a guest is filtered by."""
    return Filter(
        name=tap_name(rules.name, tap.mac),
        refs=(_base(tap), *_servers(tap), *_project(tap), ref(instance_group_name(rules.name))),
    )


def basic_filter(rules: InstanceRules, tap: TapRules) -> Filter:
    """The same interface where something else decides what gets to the guest: only what it may call itself."""
    return Filter(name=tap_name(rules.name, tap.mac), refs=(_base(tap),))


def instance_filter(rules: InstanceRules) -> Filter:
    """What all interfaces of a guest share."""
    shared = ("nova-base-ipv4", "nova-base-ipv6", "nova-state", PROVIDER, "nova-servers")
    names = (*shared, *(group_name(group.id) for group in rules.groups))
    return Filter(name=instance_group_name(rules.name), refs=tuple(ref(name) for name in names))


def group_filter(group: GroupRules, members: Mapping[int, Members]) -> Filter:
    """What a security group lets in; a rule that follows a group is written out for its members."""
    found = (one for match in group.ingress for one in _inbound("accept", 300, match, members))
    return Filter(name=group_name(group.id), rules=tuple(dict.fromkeys(found)))


def provider_filter(denies: Sequence[Match]) -> Filter:
    """What no security group can let in."""
    return Filter(name=PROVIDER, rules=tuple(one for match in denies for one in _inbound("drop", 150, match, {})))


def static_filters() -> tuple[Filter, ...]:
    """The filters that are the same for all guests; each after those it refers to."""
    return (*_spoofing(), *_shared())


def basic_filters() -> tuple[Filter, ...]:
    """Those of them that a `basic_filter` refers to; no rule of theirs is one of libvirt's for iptables."""
    return (*_spoofing(), _vpn())


def _spoofing() -> tuple[Filter, ...]:
    parts = (_no_mac_spoofing(), _no_arp_spoofing(), _no_ip_spoofing(), _no_ipv6_spoofing(), _no_other_traffic())
    return (*parts, Filter(name="nova-base", refs=tuple(ref(part.name) for part in parts)))


def _shared() -> tuple[Filter, ...]:
    return (
        _last_word("nova-base-ipv4", "ipv4", "all"),
        _last_word("nova-base-ipv6", "ipv6", "all-ipv6"),
        _vpn(),
        Filter(name="nova-state", rules=tuple(_state())),
        Filter(name="nova-servers", rules=tuple(_from_servers("drop", 170, 4)) + tuple(_from_servers("drop", 170, 6))),
        Filter(name="nova-allow-dhcp-server", rules=tuple(_from_servers("accept", 160, 4, srcipaddr="$DHCPSERVER"))),
        Filter(
            name="nova-allow-ra-server",
            rules=tuple(_from_servers("accept", 160, 6, srcipaddr="$RASERVER", srcipmask="$RAMASK")),
        ),
        _project_filter("nova-project", "all", "$PROJNET", "$PROJMASK"),
        _project_filter("nova-project-v6", "all-ipv6", "$PROJNETV6", "$PROJMASKV6"),
    )


def _vpn() -> Filter:
    return Filter(name="nova-vpn", refs=(ref("nova-no-other-traffic"),))


def _last_word(name: str, chain: str, element: str) -> Filter:
    leave = rule("accept", "out", 399, element, state="NONE")
    return Filter(name=name, chain=chain, rules=(leave, rule("drop", "in", 400, element, state="NONE")))


def _state() -> Iterable[FilterRule]:
    for kind in (NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT):
        yield rule("accept", "in", 80, "icmpv6", type=kind, state="NONE")
    for element in ("all", "all-ipv6"):
        yield rule("drop", "in", 90, element, state="INVALID")
        yield rule("accept", "in", 100, element, state="ESTABLISHED,RELATED")


def _from_servers(action: str, priority: int, family: int, **source: object) -> Iterable[FilterRule]:
    """What only servers send to guests."""
    sport, dport = (67, 68) if family == 4 else (547, 546)
    ports = {"srcportstart": sport, "srcportend": sport, "dstportstart": dport, "dstportend": dport}
    yield rule(action, "in", priority, _ELEMENTS[family]["udp"], state="NONE", **ports, **source)
    if family == 6:
        yield rule(action, "in", priority, "icmpv6", type=ROUTER_ADVERTISEMENT, state="NONE", **source)


def _project_filter(name: str, element: str, network: str, mask: str) -> Filter:
    return Filter(
        name=name, rules=(rule("accept", "in", 200, element, srcipaddr=network, srcipmask=mask, state="NONE"),)
    )


def _no_mac_spoofing() -> Filter:
    own = rule("return", "out", 100, "mac", srcmacaddr="$MAC")
    return Filter(name="nova-no-mac-spoofing", chain="mac", rules=(own, rule("drop", "out", 1000, "mac")))


def _no_arp_spoofing() -> Filter:
    return Filter(
        name="nova-no-arp-spoofing",
        chain="arp",
        rules=(
            rule("drop", "out", 100, "arp", match="no", arpsrcmacaddr="$MAC"),
            rule("return", "out", 200, "arp", arpsrcipaddr=IPv4Address(0)),  # a probe has no address yet
            rule("return", "out", 500, "arp", arpsrcipaddr="$IP"),
            rule("drop", "out", 1000, "arp"),
        ),
    )


def _no_ip_spoofing() -> Filter:
    nobody, everybody = IPv4Address(0), IPv4Address(0xFFFFFFFF)
    asked = {"protocol": "udp", "srcportstart": 68, "dstportstart": 67}
    answered = {"protocol": "udp", "srcportstart": 67, "dstportstart": 68}
    return Filter(
        name="nova-no-ip-spoofing",
        chain="ipv4",
        rules=(
            rule("return", "out", 100, "ip", srcipaddr=nobody, dstipaddr=everybody, **asked),
            rule("drop", "out", 200, "ip", srcipaddr=nobody),
            rule("drop", "out", 300, "ip", **answered),
            rule("return", "out", 500, "ip", srcipaddr="$IP"),
            rule("drop", "out", 1000, "ip"),
        ),
    )


def _no_ipv6_spoofing() -> Filter:
    nobody = IPv6Address(0)
    answered = {"protocol": "udp", "srcportstart": 547, "dstportstart": 546}
    looking = (
        rule("return", "out", 100, "ipv6", srcipaddr=nobody, protocol="icmpv6", type=kind)
        for kind in _LOOKING_FOR_AN_ADDRESS
    )
    return Filter(
        name="nova-no-ipv6-spoofing",
        chain="ipv6",
        rules=(
            *looking,
            rule("drop", "out", 200, "ipv6", srcipaddr=nobody),
            rule("drop", "out", 300, "ipv6", **answered),
            rule("drop", "out", 300, "ipv6", protocol="icmpv6", type=ROUTER_ADVERTISEMENT),
            rule("return", "out", 500, "ipv6", srcipaddr="$IPV6"),
            rule("drop", "out", 1000, "ipv6"),
        ),
    )


def _no_other_traffic() -> Filter:
    """Only what iptables sees, ARP, and what QEMU says after a migration: a VLAN tag would hide a packet."""
    kinds = tuple(rule("accept", "inout", 400, "mac", protocolid=kind) for kind in ("ipv4", "ipv6", "arp"))
    announced = rule("accept", "out", 400, "mac", protocolid="rarp")
    return Filter(name="nova-no-other-traffic", rules=(*kinds, announced, rule("drop", "inout", 1000, "mac")))


def _base(tap: TapRules) -> FilterRef:
    if tap.is_vpn:
        return ref("nova-vpn")
    # a guest without addresses of a family is bound to the one that it may use for nothing but to look for others
    return ref("nova-base", IP=tap.addresses or (IPv4Address(0),), IPV6=tap.addresses_v6 or (IPv6Address(0),))


def _servers(tap: TapRules) -> tuple[FilterRef, ...]:
    dhcp = (ref("nova-allow-dhcp-server", DHCPSERVER=tap.dhcp_servers),) if tap.dhcp_servers else ()
    routers = (
        ref("nova-allow-ra-server", RASERVER=(one.network_address,), RAMASK=(one.prefixlen,)) for one in tap.ra_sources
    )
    return (*dhcp, *routers)


def _project(tap: TapRules) -> tuple[FilterRef, ...]:
    return tuple(
        ref("nova-project", PROJNET=(one.network_address,), PROJMASK=(one.prefixlen,))
        if one.version == 4
        else ref("nova-project-v6", PROJNETV6=(one.network_address,), PROJMASKV6=(one.prefixlen,))
        for one in tap.project_networks
    )


def _inbound(action: str, priority: int, match: Match, members: Mapping[int, Members]) -> Iterable[FilterRule]:
    ports = {} if match.ports is None else {"dstportstart": match.ports[0], "dstportend": match.ports[1]}
    for source in _sources(match, members):
        yield rule(
            action,
            "in",
            priority,
            _ELEMENTS[match.family][match.protocol],
            type=match.icmp_type,
            code=match.icmp_code,
            srcipaddr=None if source is None else str(source.network_address),
            srcipmask=None if source is None else source.prefixlen,
            state="NONE",
            **ports,
        )


def _sources(match: Match, members: Mapping[int, Members]) -> Sequence[Network | None]:
    """Where matching packets come from; members with neighbouring addresses are written as one network."""
    if match.group_id is None:
        return (match.source,)
    known = members.get(match.group_id, Members()).of(match.family)
    if match.family == 4:
        return list(collapse_addresses(IPv4Network(one) for one in known))
    return list(collapse_addresses(IPv6Network(one) for one in known))
