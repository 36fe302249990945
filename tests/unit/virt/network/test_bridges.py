"""What is asked of the kernel for a network on a VLAN, which not every kernel here has."""

from __future__ import annotations

import errno
from ipaddress import IPv4Address, IPv6Address

import pytest
from pyroute2.netlink.exceptions import NetlinkError

import virt.network.bridges
from tests.builders import a_network
from virt.errors import NetworkError
from virt.network.bridges import Bridges, addresses_of

IPV6 = {"cidr_v6": "fd00:1::/64", "gateway_v6": IPv6Address("fd00:1::1")}


class Attributes(dict):
    """A netlink message."""

    get_attr = dict.get


class FakeKernel:
    """Interfaces by name, as IPRoute shows them."""

    def __init__(self):
        self.links = {"eth0": {"index": 1, "kind": None, "master": None}}
        self.lacks: str | None = None

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        pass

    def link_lookup(self, ifname):
        return [self.links[ifname]["index"]] if ifname in self.links else []

    def get_links(self, index):
        [link] = [link for link in self.links.values() if link["index"] == index]
        info = Attributes(IFLA_INFO_KIND=link["kind"]) if link["kind"] else None
        return [Attributes(IFLA_LINKINFO=info, IFLA_MASTER=link["master"])]

    def get_addr(self, **_wanted):
        return []

    def link(self, command, *, index=0, ifname="", kind="", **facts):
        if command == "set":
            [link] = [link for link in self.links.values() if link["index"] == index]
            link.update(facts)
            return
        if kind == self.lacks:
            raise NetlinkError(errno.EOPNOTSUPP, "Operation not supported")
        self.links[ifname] = {"index": len(self.links) + 1, "kind": kind, "master": None, **facts}


@pytest.fixture
def kernel(monkeypatch):
    made = FakeKernel()
    monkeypatch.setattr(virt.network.bridges, "IPRoute", lambda **_options: made)
    return made


def test_a_vlan_is_made_on_its_interface_and_joins_its_bridge(kernel):
    for _ in range(2):
        Bridges("eth0", cluster="blue").ensure(a_network(bridge="br100", vlan=100))
    assert kernel.links == {
        "eth0": {"index": 1, "kind": None, "master": None},
        "br100": {"index": 2, "kind": "bridge", "master": None, "state": "up", "br_forward_delay": 0,
                  "br_stp_state": 0, "address": "02:6d:6e:51:1b:5b"},
        "vlan100": {"index": 3, "kind": "vlan", "master": 2, "state": "up", "link": 1, "vlan_id": 100},
    }  # fmt: skip


def test_a_networks_own_interface_carries_its_vlan(kernel):
    kernel.link("add", ifname="eth1", kind="dummy")
    Bridges("eth0").ensure(a_network(bridge="br100", vlan=100, bridge_interface="eth1"))
    assert kernel.links["vlan100"]["link"] == kernel.links["eth1"]["index"]


def test_a_kernel_without_vlans_is_named(kernel):
    kernel.lacks = "vlan"
    with pytest.raises(NetworkError, match="cannot make the vlan vlan100: Operation not supported"):
        Bridges("eth0").ensure(a_network(bridge="br100", vlan=100))


def test_every_host_of_a_cluster_gives_a_networks_bridge_the_same_address_and_no_two_networks_have_the_same():
    networks = [a_network(), a_network(id=2), a_network(bridge="br101")]
    macs = [Bridges(cluster=cluster).mac_of(network) for cluster in ("blue", "red") for network in networks]
    assert macs[0] == Bridges("eth7", cluster="blue").mac_of(a_network())
    assert len(set(macs)) == 6


@pytest.mark.parametrize(
    ("facts", "addresses"),
    [
        ({}, []),
        ({"dhcp_server": IPv4Address("169.254.169.253")}, ["169.254.169.253/32"]),
        ({"dhcp_server": IPv4Address("10.0.0.1"), "routing": "nat"}, ["10.0.0.1/24"]),
        (
            {"dhcp_server": IPv4Address("10.0.0.1"), "routing": "routed", "advertised": True, **IPV6},
            ["10.0.0.1/24", "fd00:1::1/64"],
        ),
    ],
)
def test_a_host_has_the_addresses_that_it_serves_from(facts, addresses):
    assert [str(address) for address in addresses_of(a_network(**facts))] == addresses
