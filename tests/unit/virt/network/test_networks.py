"""From a network's first guest to its last, on a host whose programs only say what they were asked."""

from __future__ import annotations

import logging
import os
from ipaddress import IPv4Address

import pytest

from tests.builders import a_guest, a_network, a_vif
from virt.errors import NetworkError, ProcessError
from virt.network import ledger
from virt.network.bridges import Bridges
from virt.network.networks import Networks

SERVED = a_network(id=7, dhcp_server=IPv4Address("10.0.0.1"), routing="nat")


class World(Bridges):
    """A host's bridges and programs; `broken` is the word that fails, `killed_at` the step that is the last."""

    def __init__(self):
        super().__init__(cluster="test")
        self.links, self.asked, self.broken, self.killed_at = set(), [], None, None

    def ensure(self, network, claim=lambda _thing: None):
        self._fail_if_broken("bridge")
        if network.bridge not in self.links:
            claim(f"link {network.bridge}")
            self.links.add(network.bridge)
        self._die_at("bridge made")

    def remove(self, network, made):
        self._fail_if_broken("remove")
        self.links -= {thing.partition(" ")[2] for thing in made}
        self._die_at("removed")
        return True

    def run(self, words, *, timeout_s):
        self.asked.append(words)
        if words[0] == self.broken:
            raise ProcessError(words, 1, "no")
        self._die_at(words[0])
        return "1\n"

    def _die_at(self, step):
        if self.killed_at == step:
            raise KeyboardInterrupt

    def _fail_if_broken(self, step):
        if self.broken == step:
            raise NetworkError(f"no {step}")


@pytest.fixture
def world():
    return World()


@pytest.fixture
def networks(world, tmp_path):
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid():
            folder.chmod(folder.stat().st_mode | 0o001)
    return Networks(world, tmp_path / "networks", run=world.run)


def a_served_guest():
    return a_guest(vifs=[a_vif(network=SERVED)])


def programs(world):
    return [words[0] for words in world.asked]


def test_a_flat_network_runs_no_program(world, networks):
    guest = a_guest(vifs=[a_vif()])
    networks.plug(guest)
    networks.unplug(guest)
    assert (world.asked, world.links) == ([], set())


def test_the_first_guest_brings_its_network_and_the_last_takes_it_away(world, networks, tmp_path):
    first, second = a_served_guest(), a_served_guest()
    networks.plug(first)
    networks.plug(second)
    networks.unplug(first)
    assert world.links == {"br100"}
    networks.unplug(second)
    assert world.links == set()
    assert not (tmp_path / "networks").exists()


def test_a_bridge_that_two_networks_share_goes_with_the_last_guest_of_both(world, networks, tmp_path):
    first, second = (a_guest(vifs=[a_vif(network=a_network(id=number))]) for number in (1, 2))
    networks.plug(first)
    networks.plug(second)
    networks.unplug(first)
    assert world.links == {"br100"}
    networks.unplug(second)
    assert (world.links, (tmp_path / "networks").exists()) == (set(), False)


def test_an_operators_bridge_stays(world, networks):
    world.links.add("br100")
    guest = a_served_guest()
    networks.plug(guest)
    networks.unplug(guest)
    assert world.links == {"br100"}


@pytest.mark.parametrize("step", ["bridge", "sysctl", "nft", "dnsmasq"])
def test_a_network_that_cannot_be_had_is_told_and_leaves_nothing(world, networks, tmp_path, step):
    world.broken, guest = step, a_served_guest()
    with pytest.raises(NetworkError):
        networks.plug(guest)
    world.broken = None
    networks.unplug(guest)
    assert (world.links, (tmp_path / "networks").exists()) == (set(), False)


@pytest.mark.parametrize("step", ["remove", "nft"])
def test_what_cannot_be_taken_away_holds_up_no_delete_and_is_tried_again(world, networks, tmp_path, caplog, step):
    guest = a_served_guest()
    networks.plug(guest)
    world.broken = step
    networks.unplug(guest)
    assert "tried again later" in caplog.text
    world.broken = None
    networks.tend()
    assert (world.links, (tmp_path / "networks").exists()) == (set(), False)


def test_a_restart_takes_over_what_runs_and_drops_guests_that_are_gone(world, networks, tmp_path):
    gone, here = a_served_guest(), a_served_guest()
    networks.plug(gone)
    networks.plug(here)
    Networks(world, tmp_path / "networks", run=world.run).restore({here.uuid})
    assert [file.name[:36] for file in (tmp_path / "networks/7/hosts").iterdir()] == [here.uuid]
    Networks(world, tmp_path / "networks", run=world.run).restore(set())
    assert world.links == set()


@pytest.mark.parametrize("step", ["bridge made", "sysctl", "nft", "dnsmasq"])
def test_what_a_kill_in_the_middle_left_is_taken_away_by_the_next_start(world, networks, tmp_path, step):
    world.killed_at = step
    with pytest.raises(KeyboardInterrupt):
        networks.plug(a_served_guest())
    world.killed_at = None
    Networks(world, tmp_path / "networks", run=world.run).restore(set())
    assert (world.links, (tmp_path / "networks").exists()) == (set(), False)


@pytest.mark.parametrize("step", ["removed", "nft"])
def test_a_kill_while_it_is_taken_away_is_finished_by_the_next_start(world, networks, tmp_path, step):
    guest = a_served_guest()
    networks.plug(guest)
    world.killed_at = step
    with pytest.raises(KeyboardInterrupt):
        networks.unplug(guest)
    world.killed_at = None
    Networks(world, tmp_path / "networks", run=world.run).restore(set())
    assert (world.links, (tmp_path / "networks").exists()) == (set(), False)


def test_a_host_that_has_booted_again_owns_nothing_of_before(world, networks, monkeypatch, tmp_path):
    guest = a_served_guest()
    networks.plug(guest)
    (tmp_path / "boot").write_text("another")
    monkeypatch.setattr(ledger, "_BOOT", tmp_path / "boot")
    networks.plug(guest)
    networks.unplug(guest)
    assert world.links == {"br100"}


def test_a_server_that_has_ended_is_started_again(world, networks):
    networks.plug(a_served_guest())
    before = programs(world).count("dnsmasq")
    networks.tend()
    assert programs(world).count("dnsmasq") == before + 1


def test_an_unreachable_directory_is_named(world, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o700)
    networks = Networks(world, tmp_path / "closed/networks", run=world.run)
    with pytest.raises(NetworkError, match=r"dnsmasq's user cannot get to .* through .*"):
        networks.plug(a_served_guest())


def test_the_vlan_manager_refuses_a_network_without_one(world, tmp_path):
    networks = Networks(world, tmp_path, run=world.run, demands_vlan=True)
    with pytest.raises(NetworkError, match="network private: has no VLAN, and network_manager is vlan"):
        networks.plug(a_served_guest())


def test_a_folder_that_cannot_be_read_holds_up_no_start(networks, world, tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    networks.plug(a_served_guest())
    (tmp_path / "networks/7/network").write_text("{")
    networks.restore(set())
    assert "networks/7/network is no network's" in caplog.text
