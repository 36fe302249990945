"""Rules as libvirt's filters: reviewed documents, libvirt's schema, and what they admit."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Interface
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from tests.builders import a_group, a_guest, a_network, a_rule, a_vif
from tests.firewall_model import OUT, Packet, admits
from tests.nwfilter_interpreter import FilteredTap
from tests.unit.virt.firewall.test_iptables_admits import guests, packets, rules
from virt.firewall.nwfilter_filters import (
    group_filter,
    instance_filter,
    provider_filter,
    static_filters,
    tap_filter,
    tap_name,
)
from virt.firewall.nwfilter_xml import parse
from virt.firewall.rules import instance_rules, provider_denies

SCHEMA = Path("/usr/share/libvirt/schemas/nwfilter.rng")
NETWORK = a_network(cidr_v6="fd00::/64")
GUEST = a_guest(
    id=1,
    name="instance-1",
    vifs=(a_vif(mac="02:16:3e:00:00:01", network=NETWORK, addresses=(IPv4Interface("10.0.0.4/24"),)),),
    security_groups=(
        a_group(
            a_rule(from_port=80, to_port=443, cidr="10.0.0.0/8"),
            a_rule(protocol="udp", from_port=53, to_port=53, cidr="fd00::/8"),
            a_rule(protocol="icmp", from_port=8, to_port=0, cidr="0.0.0.0/0"),
            a_rule(protocol="icmp", from_port=-1, to_port=-1, cidr="::/0"),
            a_rule(protocol=None, from_port=-1, to_port=-1, group_id=9),
            id=7,
            members={9: ("10.0.0.8", "10.0.0.9", "fd00::8")},
        ),
    ),
)
DENIES = ({"protocol": "tcp", "from_port": "25", "to_port": "25", "cidr": "0.0.0.0/0"},)


def every_filter(spec, denies=(), **flags):
    """All filters of a guest, by name."""
    known = instance_rules(spec, **flags)
    found = [*static_filters(), provider_filter(provider_denies(denies)), instance_filter(known)]
    found += [group_filter(group, known.members) for group in known.groups]
    found += [tap_filter(known, tap) for tap in known.taps]
    return {one.name: one for one in found}


DOCUMENTS = every_filter(GUEST, DENIES, allow_project_net_traffic=True)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_filter_is_the_one_that_was_reviewed(golden, name):
    golden(f"nwfilter/{name}.xml", DOCUMENTS[name].xml())


@pytest.mark.skipif(not SCHEMA.exists(), reason="libvirt's schemas are not installed")
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_filter_is_valid_by_libvirts_own_schema(name):
    document = etree.fromstring(DOCUMENTS[name].xml())
    for element in document.iterfind("rule/*[@state]"):
        if "v6" in element.tag:
            del element.attrib[
                "state"
            ]  # the schema has forgotten it; libvirt's parser takes it, and the kernel shows it
    etree.RelaxNG(etree.parse(SCHEMA)).assertValid(document)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_filter_is_read_as_it_was_written(name):
    assert DOCUMENTS[name].same_as(parse(DOCUMENTS[name].xml()))


def test_a_filter_that_lost_a_condition_is_not_the_same():
    text = DOCUMENTS["nova-secgroup-7"].xml()
    assert not DOCUMENTS["nova-secgroup-7"].same_as(parse(text.replace(' srcipmask="8"', "", 1)))


def test_every_filter_comes_after_those_that_it_names():
    seen = set()
    for name, one in every_filter(dataclasses.replace(GUEST, security_groups=())).items():
        assert {ref.name for ref in one.refs} <= seen | {name}
        seen.add(name)


def test_members_side_by_side_are_one_rule():
    members = {9: tuple(f"10.0.0.{number}" for number in range(256))}
    group = dataclasses.replace(GUEST.security_groups[0], rules=(a_rule(group_id=9),), members=members)
    known = instance_rules(dataclasses.replace(GUEST, security_groups=(group,)))
    (only,) = group_filter(known.groups[0], known.members).rules
    assert dict(only.match)["srcipmask"] == "24"


def verdicts(filters, spec, tap, given):
    documents = {name: one.xml() for name, one in filters.items()}
    filtered = FilteredTap(documents, tap_name(spec.name, tap.mac), tap.mac)
    return [packet for packet in given if filtered.admits(packet)]


@settings(max_examples=25, deadline=None)
@given(guests(), st.lists(rules().filter(lambda rule: rule.cidr is not None), max_size=2), st.booleans())
def test_random_groups_admit_exactly_what_the_model_admits(spec, denied, allow):
    denies = [{"protocol": rule.protocol or "any", "from_port": str(rule.from_port), "to_port": str(rule.to_port),
               "cidr": rule.cidr} for rule in denied]  # fmt: skip
    filters = every_filter(spec, denies, allow_project_net_traffic=allow)
    known = instance_rules(spec, allow_project_net_traffic=allow)
    for tap in known.taps:
        sent = packets(tap)
        expected = [packet for packet in sent if admits(known, tap, packet, provider_denies(denies))]
        assert verdicts(filters, spec, tap, sent) == expected


def outgoing(tap):
    """What a guest may send, and what it may not."""
    own = [str(tap.addresses[0]), *map(str, tap.addresses_v6)]
    for source in (*own, "10.0.0.77", "fd00::77", "0.0.0.0", "::"):  # noqa: S104 - nobody's address, not a place to listen
        dest = "255.255.255.255" if "." in source else "ff02::1"
        for mac in (tap.mac, "02:00:00:00:00:99"):
            to = {"direction": OUT, "source": source, "dest": dest, "mac": mac}
            yield from (Packet(protocol=name, dport=80, **to) for name in ("tcp", "udp", "132"))
            ports = [(68, 67), (67, 68), (546, 547), (547, 546)]
            yield from (Packet(protocol="udp", sport=low, dport=high, **to) for low, high in ports)
            yield from (Packet(protocol="icmp", icmp_type=kind, **to) for kind in (8, 128, 133, 134, 135, 136, 143))
            if "." in source:
                yield Packet(protocol="arp", **to)


@settings(max_examples=10, deadline=None)
@given(guests())
def test_guests_may_send_exactly_what_the_model_lets_them(spec):
    filters, known = every_filter(spec), instance_rules(spec)
    for tap in known.taps:
        sent = list(outgoing(tap))
        assert verdicts(filters, spec, tap, sent) == [packet for packet in sent if admits(known, tap, packet)]


def test_a_vpn_gateway_may_forward_for_others():
    known = instance_rules(GUEST, vpn_image_id=str(GUEST.image.id))
    filters = every_filter(GUEST, vpn_image_id=str(GUEST.image.id))
    (tap,) = known.taps
    forwarded = [packet for packet in outgoing(tap) if packet.source == "10.0.0.77"]
    assert verdicts(filters, GUEST, tap, forwarded) == forwarded
