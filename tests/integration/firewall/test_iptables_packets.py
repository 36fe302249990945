"""Packets against the iptables firewall: every protocol, source, family and path, expected against observed."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from tests.builders import a_group, a_rule
from tests.firewall_model import ESTABLISHED, IN, OUT, Packet, admits
from tests.integration.firewall.iptables_places import (
    CABLE,
    FAR,
    FAR_GATEWAY,
    GATEWAY,
    a_host,
    a_machine,
    crosses,
    number,
    question,
    sure,
)
from tests.integration.libvirt.frames import BROADCAST, marks
from virt.firewall.rules import instance_rules

pytestmark = pytest.mark.real

PROTOCOLS = ("tcp", "udp", "icmp", "253")
SOURCES = {  # how a source is known: its last number on the bridge, and on the network that is routed
    "cidr": (70, "46"),
    "member": (6, "6"),
    "non-member": (7, "7"),
    "other project": (8, "8"),
}
ANY = {"protocol": None, "from_port": -1, "to_port": -1}
GROUP = a_group(
    *(a_rule(cidr=cidr, **ANY) for cidr in ("10.9.0.64/26", "10.8.0.64/26", "fd09::40/122", "fd08::40/122")),
    a_rule(group_id=9, **ANY),
    *(a_rule(from_port=8000, to_port=8010, cidr=cidr) for cidr in ("0.0.0.0/0", "::/0")),
    a_rule(from_port=9000, to_port=9100),
    id=7,
    members={9: ("10.9.0.6", "fd09::6", "10.8.0.6", "fd08::6")},
)
GUEST = a_machine(5, GROUP)
MAC = GUEST.vifs[0].mac


@pytest.fixture(scope="module", params=["nft", "legacy"])
def host(request):
    with a_host(request.param) as made:
        made.guest = made.start(GUEST)
        yield made


def source_of(kind, family, path):
    last, last_v6 = SOURCES[kind]
    net = 9 if path == "bridged" else 8
    return f"10.{net}.0.{last}" if family == 4 else f"fd0{net}::{last_v6}"


def own(family):
    return "10.9.0.5" if family == 4 else "fd09::5"


def wire_of(host, path):
    """The wire of that path's sources, their card, and the card that they send to in order to reach the guest."""
    return (host.cable, CABLE, MAC) if path == "bridged" else (host.far, FAR, FAR_GATEWAY)


def arrives(host, packet, path="bridged", to_mac=None):
    wire, mac, guest_mac = wire_of(host, path)
    if path == "bridged":
        probe = question(wire, mac, "10.9.0.70")
    else:
        probe = sure(wire, a_packet("udp", 4, IN, source="10.8.0.70", mac=mac), guest_mac)
    return crosses(wire, host.guest, replace(packet, mac=mac), to_mac or guest_mac, probe)


def leaves(host, packet, path="bridged"):
    """Whether what the guest sends gets to the cable; or, routed, to the other network."""
    if path == "bridged":
        return crosses(host.guest, host.cable, packet, CABLE, question(host.guest, MAC, "10.9.0.5"))
    probe = sure(host.guest, a_packet("udp", 4, OUT, dest="10.8.0.70"), GATEWAY)
    return crosses(host.guest, host.far, packet, GATEWAY, probe)


_ports = itertools.count(20000)


def a_packet(protocol, family, direction, **changes):
    kind = 8 if family == 4 else 128
    plain = {"source": own(family), "dest": own(family), "sport": next(_ports), "dport": 22, "mac": MAC}
    return Packet(direction=direction, **({"protocol": protocol, "icmp_type": kind} | plain | changes))


CASES = [
    pytest.param(*case, id="-".join(map(str, case)))
    for case in itertools.product(PROTOCOLS, SOURCES, (4, 6), ("bridged", "routed"))
]


@pytest.mark.parametrize(("protocol", "kind", "family", "path"), CASES)
def test_what_the_rules_admit_arrives_and_nothing_else(host, protocol, kind, family, path):
    packet = a_packet(protocol, family, IN, source=source_of(kind, family, path))
    known = instance_rules(GUEST)
    assert arrives(host, packet, path) is admits(known, known.taps[0], packet) is (kind in {"cidr", "member"})


@pytest.mark.parametrize(("protocol", "kind", "family", "path"), CASES)
def test_what_a_guest_sends_leaves_and_its_reply_arrives(host, protocol, kind, family, path):
    sent = a_packet(protocol, family, OUT, dest=source_of(kind, family, path))
    assert leaves(host, sent, path)
    reply = replace(
        sent, direction=IN, source=sent.dest, dest=sent.source, sport=sent.dport, dport=sent.sport,
        icmp_type=0 if family == 4 else 129, state=ESTABLISHED,
    )  # fmt: skip
    if protocol == "icmp":
        reply = replace(reply, sport=sent.sport)
    assert arrives(host, reply, path)


@pytest.mark.parametrize("path", ["bridged", "routed"])
@pytest.mark.parametrize(
    ("port", "is_open"), [(7999, False), (8000, True), (8010, True), (8011, False), (9100, True), (9101, False)]
)
def test_a_range_of_ports_is_open_from_its_first_to_its_last(host, path, port, is_open):
    packet = a_packet("tcp", 4, IN, source=source_of("non-member", 4, path), dport=port)
    assert arrives(host, packet, path) is is_open


@pytest.mark.parametrize("source", ["10.9.0.7", "192.0.2.7", "fd09::7", "2001:db8::7"])
@pytest.mark.parametrize(("protocol", "is_open"), [("tcp", True), ("udp", False)])
def test_a_port_that_is_open_to_everybody_is_open_to_either_half_of_the_addresses(host, source, protocol, is_open):
    packet = a_packet(protocol, 6 if ":" in source else 4, IN, source=source, dport=8000)
    assert arrives(host, packet) is is_open


NOBODY = str(IPv4Address(0))
LIES = {
    "another's MAC": {"mac": "02:16:3e:00:00:06"},
    "another's IPv4 address": {"source": "10.9.0.6"},
    "another's IPv6 address": {"source": "fd09::6"},
    "no address": {"source": NOBODY, "dport": 9},
    "another's ARP sender address": {"protocol": "arp", "source": "10.9.0.6"},
    "another's ARP sender MAC": {"protocol": "arp", "mac": "02:16:3e:00:00:06"},
    "a DHCP answer": {"sport": 67, "dport": 68},
    "a DHCPv6 answer": {"source": "fd09::5", "sport": 547, "dport": 546},
    "a router's advertisement": {"protocol": "icmp", "source": "fe80::16:3eff:fe00:5", "icmp_type": 134},
    "a redirect": {"protocol": "icmp", "source": "fe80::16:3eff:fe00:5", "icmp_type": 137},
    "the router's link-local address": {"source": "fe80::1"},
    "a neighbour's answer from another": {"protocol": "icmp", "source": "fd09::6", "icmp_type": 136},
}
TRUTHS = {
    "its ARP question": {"protocol": "arp"},
    "an ARP probe": {"protocol": "arp", "source": NOBODY},
    "a DHCP question": {"source": NOBODY, "dest": "255.255.255.255", "sport": 68, "dport": 67},
    "its link-local address": {"source": "fe80::16:3eff:fe00:5"},
    "its neighbour's answer": {"protocol": "icmp", "source": "fd09::5", "icmp_type": 136},
    "a neighbour's question of no address": {"protocol": "icmp", "source": "::", "icmp_type": 135},
    "a router's solicitation": {"protocol": "icmp", "source": "::", "icmp_type": 133},
}


def said(changes):
    family = 6 if ":" in changes.get("source", "") else 4
    return a_packet(
        **(
            {"protocol": "udp", "family": family, "direction": OUT, "dest": source_of("cidr", family, "bridged")}
            | changes
        )
    )


@pytest.mark.parametrize("lie", LIES)
def test_a_guest_cannot_send(host, lie):
    assert not leaves(host, said(LIES[lie]))


@pytest.mark.parametrize("truth", TRUTHS)
def test_a_guest_can_send(host, truth):
    assert leaves(host, said(TRUTHS[truth]))


@pytest.mark.parametrize("lie", ["another's MAC", "another's IPv4 address"])
def test_a_lie_does_not_get_to_the_host_or_through_it(host, lie):
    packet = replace(said(LIES[lie]), dest="10.8.0.70")
    assert not leaves(host, packet, "routed")


SERVED = {
    "a DHCP answer of its server": ({"source": "10.9.0.1", "sport": 67, "dport": 68}, True),
    "a DHCP answer of another": ({"source": "10.9.0.8", "sport": 67, "dport": 68}, False),
    "a route of a router": ({"protocol": "icmp", "source": "fe80::1", "icmp_type": 134}, True),
    "a route of another": ({"protocol": "icmp", "source": "fd09::8", "icmp_type": 134}, False),
    "a neighbour's question": ({"protocol": "icmp", "source": "fd09::8", "icmp_type": 135}, True),
    "a broadcast": ({"source": "10.9.0.8", "dest": "255.255.255.255"}, False),
    "a broadcast of an admitted one": ({"source": "10.9.0.70", "dest": "10.9.0.255"}, True),
}


@pytest.mark.parametrize("what", SERVED)
def test_a_guest_gets_what_its_network_has_to_tell(host, what):
    changes, expected = SERVED[what]
    packet = replace(said(changes), direction=IN, dest=changes.get("dest") or own(6 if ":" in changes["source"] else 4))
    assert arrives(host, packet, to_mac=BROADCAST if "broadcast" in what else None) is expected


BROADCAST_4 = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"br9")
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
s.bind(("10.9.0.1", int(sys.argv[2])))
s.sendto(sys.argv[1].encode(), ("255.255.255.255", 68))
"""
BROADCAST_6 = """
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
head = bytes([int(sys.argv[2]), 0]) + bytes(14)
s.sendto(head + sys.argv[1].encode(), ("ff02::1", 0, 0, socket.if_nametoindex("br9")))
"""
TOLD = {
    "DHCP": (BROADCAST_4, "67", True),
    "anything else": (BROADCAST_4, "99", False),
    "a route": (BROADCAST_6, "134", True),
    "an ICMPv6 error": (BROADCAST_6, "1", False),
}


@pytest.mark.parametrize("what", TOLD)
def test_of_the_hosts_own_broadcasts_a_guest_gets(host, what):
    script, kind, expected = TOLD[what]
    mark = number()
    host.execute([sys.executable, "-c", script, f"mn{mark:08d}", kind])
    wire, last, last_mark = question(host.cable, CABLE, "10.9.0.70")
    wire.send(last)
    host.guest.await_mark(last_mark)
    assert (mark in marks(host.guest.heard)) is expected


def test_a_vpn_gateway_forwards_for_others(host):
    tap = ["element", "bridge", "micronova", "vpns", f'{{ "{GUEST.vifs[0].dev}" }}']
    host.execute(["nft", "add", *tap])
    try:
        assert leaves(host, said({"source": "10.9.0.6"}))
        assert arrives(host, a_packet("udp", 4, IN, source="10.9.0.70", dest="10.20.0.6"))
    finally:
        host.execute(["nft", "delete", *tap])


def test_a_frame_for_another_guests_address_is_not_handed_over(host):
    assert not arrives(host, a_packet("udp", 4, IN, source="10.9.0.70", dest="10.9.0.6"))


@pytest.mark.parametrize("command", ["-I FORWARD 1 -j ACCEPT", "-F nova-filter-top"])
def test_what_others_do_to_iptables_shuts_and_does_not_open(host, command):
    host.execute([f"iptables-{host.variant}", *command.split()])
    assert not arrives(host, a_packet("udp", 4, IN, source="10.9.0.8"))
    host.execute([f"iptables-{host.variant}", "-D", "FORWARD", "-j", "ACCEPT"]) if "ACCEPT" in command else None
    assert host.firewall.repair([GUEST], []) or "ACCEPT" in command
    assert arrives(host, a_packet("udp", 4, IN, source="10.9.0.70"))


def test_bridged_packets_that_iptables_is_not_shown_do_not_arrive(host):
    switch = "/proc/sys/net/bridge/bridge-nf-call-iptables"
    host.execute(["tee", switch], stdin="0")
    try:
        assert not arrives(host, a_packet("udp", 4, IN, source="10.9.0.70"))
    finally:
        host.execute(["tee", switch], stdin="1")
