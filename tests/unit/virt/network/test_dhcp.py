"""What dnsmasq is told: golden command lines, and the line of each interface."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path

import pytest

from tests.builders import a_network, a_vif
from virt.network.dhcp import DhcpOptions, Folder, arguments, host_line

FOLDER = Folder(Path("/run/micronova/0123/7"))
OWN = {"dhcp_server": IPv4Address("10.0.0.1"), "routing": "nat"}
OUTSIDE = {"dhcp_server": IPv4Address("169.254.169.253")}
IPV6 = {"advertised": True, "cidr_v6": "fd00:1::/64", "gateway_v6": IPv6Address("fd00:1::1")}
SERVERS = (IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"), IPv4Address("192.0.2.2"))

CASES = {
    "gateway": (a_network(**OWN), DhcpOptions()),
    "gateway-elsewhere": (a_network(**OUTSIDE, dns=SERVERS), DhcpOptions(domain="example.org", lease_s=600)),
    "ipv6": (a_network(**OWN, **IPV6, dns=SERVERS), DhcpOptions(mtu=1450)),
    "nothing-to-tell": (a_network(**(OUTSIDE | {"gateway": None}), dns=()), DhcpOptions()),
}


@pytest.mark.parametrize("name", CASES)
def test_a_dhcp_server_is_told_what_its_network_is(golden, name):
    network, options = CASES[name]
    golden(f"network/dnsmasq-{name}.txt", "\n".join(arguments(network, FOLDER, options)) + "\n")


def test_an_unknown_mac_address_is_never_answered_and_nothing_is_given_out_of_a_range():
    for network, options in CASES.values():
        told = arguments(network, FOLDER, options)
        assert "--dhcp-ignore=tag:!known" in told
        assert all(",static," in word for word in told if word.startswith("--dhcp-range"))


def a_line(hostname="web", **changes):
    addresses = {"addresses": (IPv4Interface("10.0.0.5/24"),), "addresses_v6": (IPv6Interface("fd00:1::5/64"),)}
    return host_line(a_vif(**({"mac": "02:16:3E:00:00:05", **addresses} | changes)), hostname)


def test_an_interface_is_given_its_address_and_its_name():
    assert a_line() == "02:16:3e:00:00:05,10.0.0.5,web"


def test_an_interface_is_given_its_ipv6_address_where_it_is_advertised():
    assert a_line(network=a_network(**OWN, **IPV6)) == "02:16:3e:00:00:05,10.0.0.5,[fd00:1::5],web"


def test_a_second_interface_is_given_no_router():
    second = host_line(a_vif(mac="02:16:3e:00:00:05", addresses=()), "web", is_way_out=False)
    assert second == "02:16:3e:00:00:05,set:second,web"


@pytest.mark.parametrize(("hostname", "name"), [("web.example.org", ",web"), ("a b", ""), ("", ""), ("x,set:y", "")])
def test_a_name_that_is_none_is_not_handed_on(hostname, name):
    assert a_line(hostname) == f"02:16:3e:00:00:05,10.0.0.5{name}"
