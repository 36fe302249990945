"""What nft is told: golden rule sets, each in tables of the network's own."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

import pytest

from tests.builders import a_network
from virt.network.nat import removal, ruleset, table_of

OWN = {"id": 7, "dhcp_server": IPv4Address("10.0.0.1"), "routing": "nat"}
PRIVATE = {"advertised": True, "cidr_v6": "fd00:1::/64", "gateway_v6": IPv6Address("fd00:1::1")}
PUBLIC = PRIVATE | {"cidr_v6": "2600:db8::/64", "gateway_v6": IPv6Address("2600:db8::1")}
MAC = "02:6d:6e:00:00:07"

CASES = {
    "nat": ruleset(a_network(**OWN), MAC),
    "source-address": ruleset(a_network(**OWN), MAC, "192.0.2.11"),
    "private-ipv6": ruleset(a_network(**OWN, **PRIVATE), MAC),
    "public-ipv6": ruleset(a_network(**OWN, **PUBLIC), MAC),
    "routed-on-a-vlan": ruleset(a_network(**(OWN | {"routing": "routed"}), vlan=100), MAC),
    "uplink-of-an-operators-bridge": ruleset(a_network(**OWN, bridge_interface="eth1"), None),
    "removal": removal(a_network(**OWN)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_networks_rules_are_as_written_down(golden, name):
    golden(f"network/nft-{name}.txt", CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_no_table_but_the_networks_own_is_named(name):
    assert set(re.findall(r"table \w+ (\w+)", CASES[name])) == {table_of(a_network(id=7))}
