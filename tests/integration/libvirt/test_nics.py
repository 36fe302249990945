"""Interfaces of a real guest, plugged in and out."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess

import pytest

from tests.builders import a_network, a_vif
from tests.integration.libvirt.inside import run_inside
from virt.errors import NetworkError
from virt.network.mode import LINK_LOCAL

pytestmark = pytest.mark.real

BRIDGE = f"brnic{os.getpid() % 100000}"


@pytest.fixture
def vif():
    """An interface on a bridge that is not there yet."""
    yield a_vif(network=a_network(bridge=BRIDGE))
    subprocess.run(["ip", "link", "delete", BRIDGE], check=False, capture_output=True)


def link(name):
    found = subprocess.run(["ip", "-j", "link", "show", name], check=False, capture_output=True, text=True)
    return json.loads(found.stdout)[0] if found.returncode == 0 else None


def test_an_interface_is_seen_inside_and_its_tap_is_in_the_bridge(booted, vif):
    booted.driver.attach_nic(booted.spec, vif)
    booted.guests.wait_for(booted.spec, f":{vif.mac}")
    assert link(vif.dev)["master"] == BRIDGE
    assert booted.count(vif.mac) == 2
    booted.driver.attach_nic(booted.spec, vif)
    assert booted.count(vif.mac) == 2
    booted.driver.detach_nic(booted.spec, vif)
    assert (booted.count(vif.mac), link(vif.dev), link(BRIDGE)) == (0, None, None)


def test_an_interface_is_there_after_a_reboot(booted, vif):
    booted.driver.attach_nic(booted.spec, vif)
    booted.boots_again(lambda: booted.driver.reboot(dataclasses.replace(booted.spec, vifs=(vif,))))
    assert f":{vif.mac}" in booted.guests.console(booted.spec).rpartition("BOOTS")[2]
    booted.driver.detach_nic(booted.spec, vif)
    assert link(vif.dev) is None


def test_a_paused_guest_keeps_its_interface(booted, vif):
    booted.driver.attach_nic(booted.spec, vif)
    booted.driver.pause(booted.spec)
    with pytest.raises(NetworkError, match="paused"):
        booted.driver.detach_nic(booted.spec, vif)
    booted.driver.unpause(booted.spec)
    booted.driver.detach_nic(booted.spec, vif)
    assert booted.count(vif.mac) == 0


def test_an_interface_that_is_plugged_in_gets_its_address_by_dhcp_and_leaves_nothing(booted, vif):
    """The guest is told no router: it has another interface, in the words of its spec, that leads out."""
    network = dataclasses.replace(vif.network, id=901, dhcp_server=LINK_LOCAL)
    served = dataclasses.replace(vif, network=network)
    spec = dataclasses.replace(booted.spec, vifs=(a_vif(),))
    booted.driver.attach_nic(spec, served)
    booted.guests.wait_for(booted.spec, f" {served.addresses[0]}\n")
    assert "default" not in run_inside(booted.driver, booted.spec, "ip route")
    booted.driver.detach_nic(spec, served)
    assert (link(BRIDGE), booted.count(served.mac)) == (None, 0)


def test_a_tap_that_is_taken_is_told_and_leaves_nothing(booted, vif):
    subprocess.run(["ip", "link", "add", vif.dev, "type", "veth", "peer", f"{vif.dev[:-3]}end"], check=True)
    try:
        with pytest.raises(NetworkError, match=vif.mac):
            booted.driver.attach_nic(booted.spec, vif)
    finally:
        subprocess.run(["ip", "link", "delete", vif.dev], check=True)
    assert (booted.count(vif.mac), link(BRIDGE)) == (0, None)
