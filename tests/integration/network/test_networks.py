"""A host's networks with real bridges, dnsmasq and nftables, in namespaces: DHCP, the way out, and nothing left."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path
from typing import Any

import pytest

from compute.specs import to_global_ipv6
from tests.builders import a_guest, a_network, a_vif
from tests.integration.network.places import Place, ask_dhcp, ask_dhcp6, be, places, plug, wire
from tests.integration.processes import require_program, wait_until
from tests.integration.servers import scratch_folder
from virt import execute
from virt.errors import NetworkError
from virt.network.bridges import Bridges
from virt.network.dhcp import DhcpOptions
from virt.network.networks import Networks
from virt.spec import InstanceSpec, Network

pytestmark = pytest.mark.real

MAC, OTHER_MAC = "02:16:3e:00:00:05", "02:16:3e:00:00:06"
NAT = a_network(
    id=7, bridge="br7", cidr="10.7.0.0/24", gateway=IPv4Address("10.7.0.1"), dns=(IPv4Address("10.7.0.1"),),
    dhcp_server=IPv4Address("10.7.0.1"), routing="nat",
)  # fmt: skip
ROUTED = dataclasses.replace(NAT, routing="routed")
IPV6 = dataclasses.replace(NAT, cidr_v6="fd00:7::/64", gateway_v6=IPv6Address("fd00:7::1"), advertised=True)


@dataclass
class World:
    """A host, a guest in its bridge, and something outside that the host reaches as 192.0.2.2."""

    host: Place
    guest: Place
    outside: Place
    folder: Path

    @property
    def networks(self) -> Networks:
        """The host's networks as a daemon that has just started sees them."""
        return Networks(Bridges("eth0", self.host.netns, "test"), self.folder / "networks", DhcpOptions(mtu=1400))

    def spawn(self, network: Network = NAT, mac: str = MAC, address: str = "10.7.0.5", **changes: Any) -> InstanceSpec:
        """Have a guest on the network, as the driver does."""
        v6: tuple[IPv6Interface, ...] = (to_global_ipv6(network.cidr_v6, mac),) if network.cidr_v6 else ()
        vif = a_vif(mac=mac, network=network, addresses=(IPv4Interface(f"{address}/24"),), addresses_v6=v6)
        spec = a_guest(hostname="web", vifs=[vif], **changes)
        self.networks.plug(spec)
        return spec

    def plug_guest(self, mac: str = MAC) -> None:
        """Put the guest's cable in."""
        plug(self.host, "br7", "port", self.guest, mac)

    def unplug_guest(self) -> None:
        """Take it out, as the end of QEMU does."""
        self.host.run("ip", "link", "delete", "port")

    def server(self) -> int:
        """The DHCP server's process id."""
        return int((self.folder / "networks/7/dnsmasq.pid").read_text())

    def holds_nothing(self) -> bool:
        """True when nothing of ours is on the host."""
        tables = self.host.run("nft", "list", "tables")
        return (self.host.links(), self.host.processes(), tables) == ({"lo", "out"}, [], "") and not (
            self.folder / "networks"
        ).exists()


@pytest.fixture
def world() -> Iterator[World]:
    for program in ("dnsmasq", "dhcp_release", "nft"):
        require_program(program)
    with places(3) as (host, guest, outside), scratch_folder() as folder:
        wire(host, "out", outside, "eth0")
        for place, address in ((host, "192.0.2.1/24"), (outside, "192.0.2.2/24")):
            place.run("ip", "addr", "add", address, "dev", "out" if place is host else "eth0")
        yield World(host, guest, outside, folder)


def test_a_guest_is_told_all_about_its_network(world):
    world.spawn()
    world.plug_guest()
    assert ask_dhcp(world.guest, world.folder) == {
        "address": "10.7.0.5/24", "from": "10.7.0.1", "router": "10.7.0.1", "dns": "10.7.0.1", "domain": "novalocal",
        "mtu": "1400", "name": "web",
    }  # fmt: skip
    assert world.guest.pings("10.7.0.1")


def test_a_second_interface_is_told_all_but_a_router(world):
    first, second = a_vif(), a_vif(mac=MAC, network=NAT, addresses=(IPv4Interface("10.7.0.5/24"),))
    world.networks.plug_vif(a_guest(vifs=[first, second]), second)
    world.plug_guest()
    told = ask_dhcp(world.guest, world.folder)
    assert (told["address"], told["router"]) == ("10.7.0.5/24", "")


def test_a_mac_address_that_is_no_guests_gets_no_lease(world):
    world.spawn()
    world.plug_guest("02:16:3e:66:66:66")
    assert ask_dhcp(world.guest, world.folder) == {}
    be(world.guest, MAC)
    assert ask_dhcp(world.guest, world.folder)["address"] == "10.7.0.5/24"


def test_after_the_last_guest_nothing_is_left(world):
    first, second = world.spawn(), world.spawn(mac=OTHER_MAC, address="10.7.0.6")
    world.plug_guest()
    assert ask_dhcp(world.guest, world.folder)
    world.networks.unplug(second)
    assert world.guest.pings("10.7.0.1")
    world.unplug_guest()
    world.networks.unplug(first)
    assert world.holds_nothing()


def test_the_server_outlives_the_daemon_and_is_taken_over(world):
    spec = world.spawn()
    server = world.server()
    world.networks.restore({spec.uuid})
    assert (world.server(), len(world.host.processes())) == (server, 1)
    world.networks.restore(set())
    assert world.holds_nothing()


def test_a_guest_that_came_while_the_server_ran_gets_its_address_from_the_same_server(world):
    world.spawn()
    server = world.server()
    world.spawn(mac=OTHER_MAC, address="10.7.0.6")
    world.plug_guest(OTHER_MAC)
    assert (ask_dhcp(world.guest, world.folder)["address"], world.server()) == ("10.7.0.6/24", server)


def test_a_server_that_died_and_rules_that_were_flushed_are_there_again(world):
    world.spawn()
    server = world.server()
    os.kill(server, signal.SIGKILL)
    world.host.run("nft", "flush", "ruleset")
    wait_until(lambda: not world.host.processes(), 2, "the server's end")
    world.networks.tend()
    assert "micronova_network_7" in world.host.run("nft", "list", "tables")
    world.plug_guest()
    assert ask_dhcp(world.guest, world.folder)["address"] == "10.7.0.5/24"


def test_an_address_goes_to_its_next_guest_although_it_is_leased(world):
    old = world.spawn()
    world.plug_guest()
    assert ask_dhcp(world.guest, world.folder)
    world.spawn(mac="02:16:3e:00:00:07", address="10.7.0.7")
    world.networks.unplug(old)
    world.spawn(mac=OTHER_MAC)
    be(world.guest, OTHER_MAC)
    assert ask_dhcp(world.guest, world.folder)["address"] == "10.7.0.5/24"


def test_an_address_goes_to_its_next_guest_even_if_no_lease_can_be_released(world, monkeypatch):
    def run(words, **limits):
        return execute.run([word.replace("dhcp_release", "false") for word in words], **limits)

    old = world.spawn()
    world.plug_guest()
    assert ask_dhcp(world.guest, world.folder)
    world.spawn(mac="02:16:3e:00:00:07", address="10.7.0.7")
    Networks(Bridges("eth0", world.host.netns, "test"), world.folder / "networks", run=run).unplug(old)
    world.spawn(mac=OTHER_MAC)
    be(world.guest, OTHER_MAC)
    assert ask_dhcp(world.guest, world.folder)["address"] == "10.7.0.5/24"


def test_a_network_that_has_changed_gets_another_server(world):
    world.spawn()
    world.spawn(dataclasses.replace(NAT, dns=(IPv4Address("192.0.2.53"),)))
    world.plug_guest()
    assert ask_dhcp(world.guest, world.folder)["dns"] == "192.0.2.53"
    assert len(world.host.processes()) == 1


def test_by_nat_a_guest_reaches_what_knows_no_way_back(world):
    world.spawn()
    world.plug_guest()
    ask_dhcp(world.guest, world.folder)
    assert world.guest.pings("192.0.2.2")
    assert not world.outside.pings("10.7.0.5")
    world.outside.run("ip", "route", "add", "10.7.0.0/24", "via", "192.0.2.1")
    assert world.outside.pings("10.7.0.5")


def test_by_route_a_guest_keeps_its_address(world):
    world.spawn(ROUTED)
    world.plug_guest()
    ask_dhcp(world.guest, world.folder)
    assert not world.guest.pings("192.0.2.2")
    world.outside.run("ip", "route", "add", "10.7.0.0/24", "via", "192.0.2.1")
    assert world.guest.pings("192.0.2.2")


def test_a_guest_makes_its_ipv6_address_of_what_the_host_advertises(world):
    world.outside.run("ip", "addr", "add", "2001:db8::2/64", "dev", "eth0", "nodad")
    world.host.run("ip", "addr", "add", "2001:db8::1/64", "dev", "out", "nodad")
    world.spawn(IPV6)
    world.plug_guest()
    wanted = str(to_global_ipv6("fd00:7::/64", MAC).ip)
    wait_until(lambda: wanted in world.guest.run("ip", "-6", "addr", "show", "eth0"), 5, "its address")
    wait_until(lambda: "default" in world.guest.run("ip", "-6", "route"), 5, "its route")
    assert world.guest.pings("2001:db8::2")


def test_dhcpv6_gives_a_guest_the_same_address_and_others_none(world):
    world.spawn(IPV6)
    world.plug_guest()
    assert ask_dhcp6(world.guest, MAC) == str(to_global_ipv6("fd00:7::/64", MAC).ip)
    be(world.guest, "02:16:3e:66:66:66")
    assert ask_dhcp6(world.guest, "02:16:3e:66:66:66") in {"", "none"}


def test_a_host_that_is_no_gateway_answers_all_the_same(world):
    network = dataclasses.replace(NAT, dhcp_server=IPv4Address("169.254.169.253"), routing="none")
    spec = world.spawn(network)
    world.plug_guest()
    told = ask_dhcp(world.guest, world.folder)
    assert (told["address"], told["from"], told["router"]) == ("10.7.0.5/24", "169.254.169.253", "10.7.0.1")
    assert not world.guest.pings("10.7.0.1")
    world.unplug_guest()
    world.networks.unplug(spec)
    assert world.holds_nothing()


def test_an_operators_bridge_addresses_and_rules_are_left_alone(world):
    world.host.run("ip", "link", "add", "br7", "type", "bridge")
    world.host.run("ip", "addr", "add", "10.7.0.1/24", "dev", "br7")
    world.host.run("nft", "add", "table", "inet", "theirs")
    spec = world.spawn()
    assert "micronova_network_7" in world.host.run("nft", "list", "tables")
    world.networks.unplug(spec)
    assert world.host.ip("addr", "show", "br7")[0]["addr_info"][0]["local"] == "10.7.0.1"
    assert world.host.run("nft", "list", "tables") == "table inet theirs\n"


def test_what_is_still_in_a_bridge_keeps_it_until_it_leaves(world):
    spec = world.spawn()
    world.plug_guest()
    world.networks.unplug(spec)
    assert "br7" in world.host.links()
    world.unplug_guest()
    world.networks.tend()
    assert world.holds_nothing()


def test_no_other_host_hears_of_this_ones_gateway(world):
    wire(world.host, "eth0", world.guest, "eth0")
    world.guest.run("ip", "addr", "add", "10.7.0.99/24", "dev", "eth0")
    world.spawn(dataclasses.replace(NAT, bridge_interface="eth0"))
    assert not world.guest.pings("10.7.0.1")
    world.host.run("nft", "delete", "table", "bridge", "micronova_network_7")
    assert world.guest.pings("10.7.0.1")


def test_a_server_that_cannot_start_is_named_and_leaves_nothing(world):
    holder = "import socket, time; s = socket.socket(2, 2); s.bind(('', 67)); print(flush=True); time.sleep(60)"
    with subprocess.Popen(world.host.command(sys.executable, "-c", holder), stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        guest = a_guest(vifs=[a_vif(network=NAT)])
        with pytest.raises(NetworkError, match=r"no DHCP server on br7: .*already in use"):
            world.networks.plug(guest)
        world.networks.unplug(guest)
        other.kill()
    assert world.holds_nothing()
