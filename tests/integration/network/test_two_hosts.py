"""One network on two hosts: guests reach each other, and each has its own host as DHCP server and gateway."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from tests.builders import a_guest, a_network, a_vif
from tests.integration.network.places import Place, ask_dhcp, places, plug, wire
from tests.integration.processes import require_program
from tests.integration.servers import scratch_folder
from virt.network.bridges import Bridges
from virt.network.networks import Networks

pytestmark = pytest.mark.real

SHARED = a_network(
    id=7, bridge="br7", cidr="10.7.0.0/24", gateway=IPv4Address("10.7.0.1"), dhcp_server=IPv4Address("10.7.0.1"),
    routing="nat", bridge_interface="uplink",
)  # fmt: skip


@dataclasses.dataclass
class Site:
    """A host and the guest on it."""

    host: Place
    guest: Place
    folder: Path
    number: int

    def boot(self) -> None:
        """Have the guest on the network."""
        mac = f"02:16:3e:00:00:0{self.number}"
        vif = a_vif(mac=mac, network=SHARED, addresses=(IPv4Interface(f"10.7.0.{self.number}/24"),))
        networks = Networks(Bridges("eth0", self.host.netns, "test"), self.folder / f"networks{self.number}")
        networks.plug(a_guest(vifs=[vif]))
        plug(self.host, "br7", "port", self.guest, mac)


@pytest.fixture
def sites() -> Iterator[tuple[Site, Site]]:
    for program in ("dnsmasq", "nft"):
        require_program(program)
    with places(4) as (one, other, guest, peer), scratch_folder() as folder:
        wire(one, "uplink", other, "uplink")
        pair = Site(one, guest, folder, 5), Site(other, peer, folder, 6)
        for site in pair:
            site.boot()
        yield pair


def test_each_guest_gets_its_address_from_its_own_host_and_reaches_the_other(sites):
    told = [ask_dhcp(site.guest, site.folder) for site in sites]
    assert [(one["address"], one["from"]) for one in told] == [("10.7.0.5/24", "10.7.0.1"), ("10.7.0.6/24", "10.7.0.1")]
    assert sites[0].guest.pings("10.7.0.6")


def test_a_guests_gateway_is_its_own_host_and_never_the_other(sites):
    one, other = sites
    for site in sites:
        ask_dhcp(site.guest, site.folder)
    assert one.guest.pings("10.7.0.1")
    one.host.run("ip", "addr", "del", "10.7.0.1/24", "dev", "br7")
    assert not one.guest.pings("10.7.0.1")
    assert other.guest.pings("10.7.0.1")


def test_both_hosts_gateways_have_one_mac_address(sites):
    """So a guest that moves to the other host need not ask for it again."""
    assert len({site.host.ip("link", "show", "br7")[0]["address"] for site in sites}) == 1
