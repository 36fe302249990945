"""libvirt's filters against packets: real guests of QEMU on a bridge, and what gets to them and away from them."""

from __future__ import annotations

import functools
import itertools
from ipaddress import IPv4Address

import pytest

from tests.builders import a_group, a_rule
from tests.firewall_model import ESTABLISHED, IN, OUT, Packet
from tests.integration.libvirt.bare_guests import BRIDGE, FAR, WIRE, BareHost, a_bare_guest
from tests.integration.libvirt.frames import BROADCAST, Wire, frame, marks
from tests.integration.servers import LibvirtHost, running

pytestmark = pytest.mark.real

PROTOCOLS = ("tcp", "udp", "icmp", "253")
ADMITTED = {"cidr": ("10.0.0.70", "fd00::46"), "member": ("10.0.0.7", "fd00::7")}
REFUSED = {"non-member": ("10.0.0.8", "fd00::8"), "other project": ("10.9.0.7", "fd09::7")}
SOURCES = ADMITTED | REFUSED
RULES = a_group(
    a_rule(protocol=None, from_port=-1, to_port=-1, cidr="10.0.0.64/26"),
    a_rule(protocol=None, from_port=-1, to_port=-1, cidr="fd00::40/122"),
    a_rule(protocol=None, from_port=-1, to_port=-1, group_id=9),
    a_rule(from_port=8000, to_port=8010, cidr="10.0.0.9/32"),
    a_rule(protocol="icmp", from_port=8, to_port=-1, cidr="10.0.0.9/32"),
    id=7,
    members={9: ("10.0.0.7", "fd00::7")},
)
OWN = {4: "10.0.0.5", 6: "fd00::5"}
NOBODY = str(IPv4Address(0))
THEIRS = "02:00:00:00:00:99"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def bare():
    """A host with a bridge and a wire."""
    with running(functools.partial(LibvirtHost, network=True)) as host:
        yield BareHost(host)


@pytest.fixture(scope="module")
def guest(bare):
    """A running guest behind RULES."""
    spec, firewall = a_bare_guest(5, security_groups=(RULES,)), bare.firewall()
    bare.start(spec, firewall)
    yield spec
    bare.stop(spec, firewall)


@pytest.fixture(scope="module")
def arrives(bare, guest):
    """Tells whether a packet from the wire gets to the guest."""
    wire, mac = Wire(bare.host, WIRE, "tap"), guest.vifs[0].mac

    def arrives(packet, to_mac=mac, build=frame):
        mark, last = next(_numbers), next(_numbers)
        wire.send(build(packet, to_mac, mark), frame(a_packet(protocol="arp"), BROADCAST, last))
        assert wire.has(last)
        return mark in marks(wire.heard)

    yield arrives
    wire.close()


@pytest.fixture(scope="module")
def leaves(bare, guest):
    """Tells whether a packet that the guest sends gets on the wire."""
    wire, card, own = Wire(bare.host, WIRE, FAR), bare.card(guest), guest.vifs[0].mac

    def leaves(packet, build=frame):
        mark, last = next(_numbers), next(_numbers)
        card.send(build(packet, THEIRS, mark), frame(sent(protocol="arp"), BROADCAST, last))
        assert wire.has(last)
        return mark in marks(wire.heard)

    assert own == sent().mac
    yield leaves
    card.close()
    wire.close()


def a_packet(family=4, source="10.0.0.8", **changes):
    """A packet to the guest."""
    given = {"direction": IN, "protocol": "tcp", "dest": OWN[family], "mac": THEIRS, "dport": 80}
    given["icmp_type"] = 8 if family == 4 else 128
    return Packet(**(given | {"source": source, "sport": 20000 + next(_numbers)} | changes))


def sent(family=4, **changes):
    """A packet that the guest sends to somebody who has no rule."""
    dest = REFUSED["non-member"][family == 6]
    own = {"direction": OUT, "mac": "02:16:3e:00:00:05", "dest": dest}
    return a_packet(family, **({"source": OWN[family]} | own | changes))


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_only_what_a_rule_admits_gets_to_a_guest(arrives, protocol, source, family):
    packet = a_packet(family, SOURCES[source][family == 6], protocol=protocol)
    assert arrives(packet) is (source in ADMITTED)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_a_guest_sends_leaves_and_is_answered(arrives, leaves, protocol, family):
    question = sent(family, protocol=protocol)
    assert leaves(question)
    back = {"sport": question.dport, "dport": question.sport, "icmp_type": 0 if family == 4 else 129}
    if protocol == "icmp":
        back["sport"] = question.sport
    assert not arrives(a_packet(family, SOURCES["other project"][family == 6], protocol=protocol, **back))
    assert arrives(a_packet(family, question.dest, protocol=protocol, state=ESTABLISHED, **back))


@pytest.mark.parametrize(("port", "expected"), [(7999, False), (8000, True), (8010, True), (8011, False)])
def test_a_rule_admits_its_ports_and_no_others(arrives, port, expected):
    assert arrives(a_packet(source="10.0.0.9", dport=port)) is expected
    assert not arrives(a_packet(source="10.0.0.9", protocol="udp", dport=port))


@pytest.mark.parametrize(("kind", "expected"), [(8, True), (13, False)])
def test_a_rule_admits_its_icmp_type_and_no_other(arrives, kind, expected):
    assert arrives(a_packet(source="10.0.0.9", protocol="icmp", icmp_type=kind)) is expected


@pytest.mark.parametrize(
    "lie",
    [
        {"mac": THEIRS},
        {"source": "10.0.0.70"},
        {"source": NOBODY, "protocol": "udp", "dport": 53},
        {"protocol": "arp", "source": "10.0.0.1"},
        {"protocol": "arp", "mac": THEIRS},
        {"protocol": "udp", "sport": 67, "dport": 68},
        {"family": 6, "source": "fd00::46"},
        {"family": 6, "source": "::"},
        {"family": 6, "protocol": "icmp", "icmp_type": 134},
        {"family": 6, "protocol": "icmp", "icmp_type": 136, "source": "fd00::1"},
        {"family": 6, "protocol": "udp", "sport": 547, "dport": 546},
    ],
    ids=str,
)
def test_a_guest_cannot_lie_about_who_it_is(leaves, lie):
    assert not leaves(sent(**lie))


@pytest.mark.parametrize(
    "question",
    [
        {"protocol": "arp"},
        {"protocol": "arp", "source": NOBODY},
        {"protocol": "udp", "source": NOBODY, "dest": "255.255.255.255", "sport": 68, "dport": 67},
        {"family": 6, "protocol": "icmp", "icmp_type": 135},
        {"family": 6, "protocol": "icmp", "icmp_type": 135, "source": "::"},
        {"family": 6, "protocol": "icmp", "icmp_type": 133, "source": "fe80::16:3eff:fe00:5"},
    ],
    ids=str,
)
def test_a_guest_can_ask_for_addresses_and_neighbours(leaves, question):
    assert leaves(sent(**question))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"protocol": "udp", "source": "10.0.0.1", "sport": 67, "dport": 68}, True),
        ({"protocol": "udp", "source": "10.0.0.70", "sport": 67, "dport": 68}, False),
        ({"family": 6, "protocol": "icmp", "icmp_type": 134, "source": "fe80::1"}, True),
        ({"family": 6, "protocol": "icmp", "icmp_type": 134, "source": "fd00::46"}, False),
        ({"family": 6, "protocol": "icmp", "icmp_type": 136, "source": "fd00::8"}, True),
    ],
    ids=str,
)
def test_only_the_networks_servers_give_addresses_and_routes(arrives, answer, expected):
    assert arrives(a_packet(**answer)) is expected


def tagged(packet, to_mac, mark):
    plain = frame(packet, to_mac, mark)
    return plain[:12] + b"\x81\x00\x00\x05" + plain[12:]


def test_a_vlan_tag_hides_nothing(arrives, leaves):
    assert not arrives(a_packet(source="10.0.0.70"), build=tagged)
    assert not leaves(sent(), build=tagged)


def test_what_this_host_routes_to_a_guest_is_seen_by_iptables_alone(bare, guest, arrives):
    """The reason why routed networks need firewall_driver = iptables."""
    bare.execute(["ip", "address", "replace", "10.0.0.1/24", "dev", BRIDGE])
    bare.execute(["ip", "neighbour", "replace", OWN[4], "lladdr", guest.vifs[0].mac, "dev", BRIDGE])
    to_host = bare.execute(["cat", f"/sys/class/net/{BRIDGE}/address"]).strip()
    bare.execute(["ip", "route", "replace", "10.9.0.0/24", "dev", BRIDGE])
    assert not arrives(a_packet(source="10.9.0.7"))
    assert arrives(a_packet(source="10.9.0.7"), to_mac=to_host)
