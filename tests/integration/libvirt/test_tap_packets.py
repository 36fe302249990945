"""Every firewall against packets: real guests of QEMU, and what gets to them and away from them, by every path.

What libvirt's filters alone do not see gets to a guest whatever the rules say: this is told here too.
"""

from __future__ import annotations

import itertools
from ipaddress import IPv4Address

import pytest

from tests.firewall_model import admits
from tests.integration.libvirt.bare_guests import FIREWALLS, GATEWAY, THEIRS
from tests.integration.libvirt.frames import BROADCAST, frame
from tests.integration.libvirt.stages import (
    ADMITTED,
    GUEST,
    PATHS,
    REFUSED,
    SOURCES,
    STRANGER,
    a_machine,
    a_packet,
    a_stage,
    answer,
    sent,
    source_of,
)
from virt.firewall.rules import instance_rules

pytestmark = pytest.mark.real

PROTOCOLS = ("tcp", "udp", "icmp", "253")
ASKED = ("tcp", "udp", "icmp", "254")  # not 253: without ports, what is asked once lets in all that follows
FAMILIES = (4, 6)
NOBODY = str(IPv4Address(0))
OTHERS_MAC = "02:16:3e:00:00:0b"
LINK_LOCAL = "fe80::16:3eff:fe00:a"

each = pytest.mark.parametrize("stage", FIREWALLS, indirect=True, scope="module")
each_that_sees_all = pytest.mark.parametrize("stage", FIREWALLS[1:], indirect=True, scope="module")
each_path = pytest.mark.parametrize("path", PATHS)
each_way_out = pytest.mark.parametrize("path", PATHS[:2])
each_family = pytest.mark.parametrize("family", FAMILIES)
each_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)
each_that_is_asked = pytest.mark.parametrize("protocol", ASKED)
each_source = pytest.mark.parametrize("source", SOURCES)


@pytest.fixture(scope="module")
def stage(request):
    """A host with the firewall of this name and a running guest."""
    with a_stage(request.param) as made:
        yield made


@each
@each_path
@each_family
@each_source
@each_protocol
def test_what_a_firewall_sees_gets_to_a_guest_only_if_a_rule_admits_it(stage, path, protocol, source, family):
    packet, known = a_packet(family, source_of(source, family, path), protocol=protocol), instance_rules(GUEST)
    verdict = admits(known, known.taps[0], packet)
    assert verdict is (source in ADMITTED)
    assert stage.arrives(packet, path) is (verdict or path not in stage.seen_paths)


@each
@each_way_out
@each_family
@each_source
@each_that_is_asked
def test_what_a_guest_sends_leaves_and_is_answered(stage, path, protocol, source, family):
    question = sent(family, protocol=protocol, dest=source_of(source, family, path))
    assert stage.leaves(question, path)
    unasked = answer(sent(family, protocol=protocol, dest=source_of(STRANGER, family, path)))
    assert stage.arrives(unasked, path) is (path not in stage.seen_paths)
    assert stage.arrives(answer(question), path)


@each_that_sees_all
@each_family
@each_that_is_asked
def test_what_a_guest_asks_the_host_is_answered(stage, protocol, family):
    question = sent(family, protocol=protocol, dest=GATEWAY[family])
    assert not stage.arrives(answer(question), "host")
    assert stage.leaves(question, "host")
    assert stage.arrives(answer(question), "host")


@each
@pytest.mark.parametrize(("port", "expected"), [(7999, False), (8000, True), (8010, True), (8011, False)])
def test_a_rule_admits_its_ports_and_no_others(stage, port, expected):
    assert stage.arrives(a_packet(source="10.0.0.9", dport=port)) is expected
    assert not stage.arrives(a_packet(source="10.0.0.9", protocol="udp", dport=port))


@each
@pytest.mark.parametrize(("kind", "expected"), [(8, True), (13, False)])
def test_a_rule_admits_its_icmp_type_and_no_other(stage, kind, expected):
    assert stage.arrives(a_packet(source="10.0.0.9", protocol="icmp", icmp_type=kind)) is expected


LIES = {
    "another's MAC": {"mac": OTHERS_MAC},
    "nobody's MAC": {"mac": THEIRS},
    "another's IPv4 address": {"source": "10.0.0.70"},
    "another's IPv6 address": {"family": 6, "source": "fd00::46"},
    "no IPv4 address": {"source": NOBODY, "protocol": "udp", "dport": 53},
    "no IPv6 address": {"family": 6, "source": "::"},
    "another's link-local address": {"family": 6, "source": "fe80::1"},
    "another's ARP sender address": {"protocol": "arp", "source": GATEWAY[4]},
    "another's ARP sender MAC": {"protocol": "arp", "mac": THEIRS},
    "a DHCP answer": {"protocol": "udp", "sport": 67, "dport": 68},
    "a DHCPv6 answer": {"family": 6, "protocol": "udp", "sport": 547, "dport": 546},
    "a router's advertisement": {"family": 6, "protocol": "icmp", "icmp_type": 134, "source": LINK_LOCAL},
    "a neighbour's answer from another": {"family": 6, "protocol": "icmp", "icmp_type": 136, "source": GATEWAY[6]},
}


@each
@pytest.mark.parametrize("lie", LIES)
def test_a_guest_cannot_lie_by(stage, lie):
    assert not stage.leaves(sent(**LIES[lie]))


@each
@pytest.mark.parametrize("path", ["routed", "host"])
@pytest.mark.parametrize("lie", ["another's MAC", "another's IPv4 address", "another's IPv6 address"])
def test_a_lie_gets_neither_to_the_host_nor_through_it_by(stage, lie, path):
    family = LIES[lie].get("family", 4)
    dest = source_of("cidr", family, path) if path == "routed" else GATEWAY[family]
    assert stage.leaves(sent(family, dest=dest), path)
    assert not stage.leaves(sent(**({"dest": dest} | LIES[lie])), path)


@each_that_sees_all
def test_a_redirect_is_no_guests_to_send(stage):
    assert not stage.leaves(sent(6, protocol="icmp", icmp_type=137, source=LINK_LOCAL))


@each
@pytest.mark.parametrize(
    "question",
    [
        {"protocol": "arp"},
        {"protocol": "arp", "source": NOBODY},
        {"protocol": "udp", "source": NOBODY, "dest": "255.255.255.255", "sport": 68, "dport": 67},
        {"family": 6, "protocol": "icmp", "icmp_type": 135},
        {"family": 6, "protocol": "icmp", "icmp_type": 135, "source": "::"},
        {"family": 6, "protocol": "icmp", "icmp_type": 133, "source": LINK_LOCAL},
    ],
    ids=str,
)
def test_a_guest_can_ask_for_addresses_and_neighbours(stage, question):
    assert stage.leaves(sent(**question))


@each
@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"protocol": "udp", "source": GATEWAY[4], "sport": 67, "dport": 68}, True),
        ({"protocol": "udp", "source": "10.0.0.70", "sport": 67, "dport": 68}, False),
        ({"family": 6, "protocol": "icmp", "source": "fe80::1", "icmp_type": 134}, True),
        ({"family": 6, "protocol": "icmp", "source": "fd00::46", "icmp_type": 134}, False),
        ({"family": 6, "protocol": "icmp", "source": "fd00::8", "icmp_type": 136}, True),
    ],
    ids=str,
)
def test_only_the_networks_servers_give_addresses_and_routes(stage, told, expected):
    assert stage.arrives(a_packet(**told)) is expected


def announced(packet, to_mac, mark):
    """What QEMU sends for a guest that has come from another host: switches learn from it where the guest is."""
    arp = frame(packet, to_mac, mark)
    return arp[:12] + b"\x80\x35" + arp[14:20] + b"\x00\x03" + arp[22:]


@each
def test_a_guest_that_came_from_another_host_says_so(stage):
    assert stage.leaves(sent(protocol="arp"), build=announced)
    assert not stage.leaves(sent(protocol="arp", mac=THEIRS), build=announced)


def tagged(packet, to_mac, mark):
    plain = frame(packet, to_mac, mark)
    return plain[:12] + b"\x81\x00\x00\x05" + plain[12:]


@each
def test_a_vlan_tag_hides_nothing(stage):
    assert not stage.arrives(a_packet(source=source_of("cidr", 4)), build=tagged)
    assert not stage.leaves(sent(), build=tagged)


@each
def test_a_broadcast_reaches_a_guest_only_from_whom_a_rule_admits(stage):
    for source, expected in (("cidr", True), ("non-member", False)):
        packet = a_packet(source=source_of(source, 4), dest="10.0.0.255", protocol="udp")
        assert stage.arrives(packet, to_mac=BROADCAST) is expected


@each
@each_family
@pytest.mark.parametrize("path", ["routed", "host"])
def test_what_the_host_routes_passes_libvirts_filters_alone_but_not_both_together(stage, path, family):
    """The reason why a host that routes is refused with nwfilter alone."""
    for source, protocol in itertools.product(REFUSED, PROTOCOLS):
        packet = a_packet(family, source_of(source, family, path), protocol=protocol)
        assert stage.arrives(packet, path) is (stage.kind == "nwfilter")


@pytest.fixture(scope="module")
def guests(stage):
    """All running guests: GUEST, which is 10, and those whose names and numbers begin like others'."""
    others = [a_machine(number) for number in (1, 11, 100)]
    for spec in others:
        stage.start(spec)
    return [GUEST, *others]


@each
def test_the_first_change_after_a_restart_leaves_every_guest_filtered(stage, guests):
    new = a_machine(12)
    with stage.under_fire(*guests):
        stage.restart()
        stage.firewall.prepare_instance_filter(new)
        assert stage.firewall.audit([*guests, new], []) == []
    assert all(stage.admits_friends(spec) for spec in guests)
    stage.firewall.unfilter_instance(new)


@each
def test_guest_1_goes_while_10_and_11_and_100_stay_filtered(stage, guests):
    one = guests.pop(1)
    with stage.under_fire(*guests):
        stage.bare.stop(one, stage.firewall)
        assert not stage.firewall.instance_filter_exists(one)
        assert stage.firewall.audit(guests, []) == []
    assert all(stage.admits_friends(spec) for spec in guests)
