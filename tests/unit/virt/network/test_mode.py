"""Which flags make what of a network."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest

from compute import conf
from tests.builders import a_network
from virt.network.mode import LINK_LOCAL, NetworkMode

IPV6 = {"cidr_v6": "fd00:1::/64", "gateway_v6": IPv6Address("fd00:1::1")}


def served(tmp_path, network, **flags):
    (tmp_path / "empty").touch()
    return NetworkMode.from_conf(conf.load([str(tmp_path / "empty")], flags)).serve(network)


def test_a_flat_network_is_a_bridge_and_nothing_else(tmp_path):
    assert served(tmp_path, a_network()) == a_network()
    assert served(tmp_path, a_network(), network_manager="nova.network.manager.FlatManager") == a_network()


@pytest.mark.parametrize("manager", ["flatdhcp", "nova.network.manager.FlatDHCPManager", "vlan"])
def test_the_gateway_is_the_dhcp_server(tmp_path, manager):
    network = served(tmp_path, a_network(), network_manager=manager)
    assert (network.dhcp_server, network.routing, network.advertised) == (network.gateway, "nat", False)


def test_a_host_that_is_no_gateway_answers_from_an_address_that_every_host_may_have(tmp_path):
    for network, routing in ((a_network(), "none"), (a_network(gateway=None), "nat")):
        found = served(tmp_path, network, network_manager="flatdhcp", network_routing=routing)
        assert (found.dhcp_server, found.routing) == (LINK_LOCAL, "none")


@pytest.mark.parametrize(
    ("network", "routing", "advertised"),
    [(IPV6, "nat", True), (IPV6, "routed", True), (IPV6, "none", False), ({}, "nat", False)],
)
def test_ipv6_is_advertised_by_gateways_of_networks_that_have_it(tmp_path, network, routing, advertised):
    flags = {"network_manager": "flatdhcp", "network_routing": routing, "use_ipv6": True}
    assert served(tmp_path, a_network(**network), **flags).advertised is advertised


def test_only_the_vlan_manager_demands_a_vlan():
    assert [NetworkMode(manager=one).demands_vlan for one in ("flat", "flatdhcp", "vlan")] == [False, False, True]
