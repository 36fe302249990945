"""Specs as rules."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

import pytest

from tests.builders import a_group, a_guest, a_network, a_rule, a_vif
from virt.firewall.rules import Match, instance_rules, link_local, matches, member_set, provider_denies


def tap_of(vif, **flags):
    return instance_rules(a_guest(vifs=(vif,)), **flags).taps[0]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (a_rule(cidr="10.0.0.0/8"), Match(family=4, protocol="tcp", ports=(22, 22), source=IPv4Network("10.0.0.0/8"))),
        (a_rule(cidr="::/0"), Match(family=6, protocol="tcp", ports=(22, 22))),
        (a_rule(from_port=0, to_port=65535), Match(family=4, protocol="tcp")),
        (a_rule(from_port=-1, to_port=-1), Match(family=4, protocol="tcp")),
        (a_rule(protocol=None, from_port=-1, to_port=-1), Match(family=4)),
        (a_rule(protocol="icmp", from_port=-1, to_port=-1), Match(family=4, protocol="icmp")),
        (a_rule(protocol="icmp", from_port=8, to_port=-1), Match(family=4, protocol="icmp", icmp_type=8)),
        (a_rule(protocol="icmp", from_port=0, to_port=0), Match(family=4, protocol="icmp", icmp_type=0, icmp_code=0)),
    ],
)
def test_a_rule_matches_what_it_says(rule, expected):
    assert matches(rule) == (expected,)


def test_a_rule_that_follows_a_group_is_of_both_families():
    assert [(one.family, one.group_id) for one in matches(a_rule(group_id=9))] == [(4, 9), (6, 9)]


def test_a_reserved_icmp_type_matches_nothing():
    assert matches(a_rule(protocol="icmp", from_port=255, to_port=-1)) == ()


def test_rules_that_say_the_same_are_one():
    known = instance_rules(a_guest(security_groups=(a_group(a_rule(), a_rule(), id=1), a_group(a_rule(), id=2))))
    assert len(known.ingress(4)) == 1
    assert known.ingress(6) == ()


def test_members_are_kept_of_the_groups_that_are_followed():
    group = a_group(a_rule(group_id=9), members={9: ("10.0.0.9", "fd00::9", "10.0.0.9"), 8: ("10.0.0.8",)})
    assert dict(instance_rules(a_guest(security_groups=(group,))).members) == {9: member_set(["10.0.0.9", "fd00::9"])}


def test_a_tap_may_be_its_addresses_and_the_link_local_one():
    vif = a_vif(
        mac="02:16:3E:00:00:01", network=a_network(cidr_v6="fd00::/64"), addresses_v6=(IPv6Interface("fd00::5/64"),)
    )
    tap = tap_of(vif)
    assert tap.mac == "02:16:3e:00:00:01"
    assert tap.addresses_v6 == (IPv6Address("fd00::5"), IPv6Address("fe80::16:3eff:fe00:1"))
    assert link_local(tap.mac) == tap.addresses_v6[1]


def test_the_dhcp_server_is_the_networks_own_or_its_gateway():
    assert tap_of(a_vif()).dhcp_servers == (IPv4Address("10.0.0.1"),)
    own = a_network(dhcp_server=IPv4Address("10.0.0.3"))
    assert tap_of(a_vif(network=own)).dhcp_servers == (IPv4Address("10.0.0.3"),)
    assert tap_of(a_vif(network=a_network(gateway=None))).dhcp_servers == ()


@pytest.mark.parametrize(
    ("gateway", "sources"), [(None, "fe80::/10"), ("fd00::1", "fe80::/10"), ("fe80::1", "fe80::1/128")]
)
def test_routers_advertise_from_their_link_local_address(gateway, sources):
    network = a_network(cidr_v6="fd00::/64", gateway_v6=IPv6Address(gateway) if gateway else None)
    assert tap_of(a_vif(network=network)).ra_sources == (IPv6Network(sources),)


def test_only_a_flag_lets_the_whole_network_in():
    assert tap_of(a_vif()).project_networks == ()
    assert tap_of(a_vif(), allow_project_net_traffic=True).project_networks == (IPv4Network("10.0.0.0/24"),)


def test_only_guests_of_the_vpn_image_forward_for_others():
    spec = a_guest()
    assert instance_rules(spec, vpn_image_id=str(spec.image.id)).taps[0].is_vpn
    assert not instance_rules(spec, vpn_image_id="0").taps[0].is_vpn
    assert not instance_rules(a_guest(image=None), vpn_image_id="").taps[0].is_vpn


def test_denies_are_matches():
    denies = provider_denies([{"protocol": "any", "from_port": "-1", "to_port": "-1", "cidr": "192.0.2.0/24"}])
    assert denies == (Match(family=4, source=IPv4Network("192.0.2.0/24")),)
