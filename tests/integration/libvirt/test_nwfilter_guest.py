"""A real guest behind libvirt's filters, from nova-manage to packets; the tests are steps of one story, in order."""

from __future__ import annotations

import sys

import pytest

from tests.functional.harness import eventually
from tests.integration.filtered_guests import BOOT_S, CIDR, Lab, furnished, rule_of

pytestmark = pytest.mark.real


class BridgedLab(Lab):
    """A host whose guests are bridged only, behind libvirt's filters, and a neighbour in the bridge."""

    def serves(self, place):
        """True when the guest takes a connection of HTTP from there."""
        connect = f"import socket; socket.create_connection(({self.address!r}, 80), 3)"
        return place.succeeds(sys.executable, "-c", connect)

    def reached(self):
        """Whether the neighbour gets an answer: to a ping, to HTTP."""
        return [self.neighbour.pings(self.address), self.serves(self.neighbour)]


@pytest.fixture(scope="module")
def lab(guest_image):
    with furnished(BridgedLab, guest_image, firewall_driver="nwfilter", force_config_drive="true") as lab:
        yield lab


def test_nobody_gets_to_a_guest_without_rules(lab):
    lab.operate("vm", "boot", "--name", "one", "--instance_type", "m1.nano", "--image", "tiny", "--wait")
    eventually(lambda: "GUEST-READY" in lab.operate("vm", "console_log", "one"), BOOT_S, "its marker")
    assert f"ADDRESS eth0 {lab.address}/24" in lab.operate("vm", "console_log", "one")
    assert lab.reached() == [False, False]


def test_a_rule_lets_in_what_it_names(lab):
    lab.operate("secgroup", "add-rule", "default", "icmp")
    eventually(lambda: lab.neighbour.pings(lab.address), 60, "an answer to a ping")
    assert lab.reached() == [True, False]
    lab.operate("secgroup", "add-rule", "default", "tcp", "80", "--cidr", CIDR)
    eventually(lambda: lab.serves(lab.neighbour), 60, "a connection")


def test_a_daemon_that_is_killed_leaves_the_filters_as_they_are(lab):
    lab.daemon.kill()
    assert lab.reached() == [True, True]
    lab.daemon.start()
    assert lab.reached() == [True, True]
    assert lab.operate.ask("verify", "--hosts") == []


def test_a_rule_that_is_withdrawn_lets_in_no_more(lab):
    lab.operate("secgroup", "delete-rule", rule_of(lab, "tcp"))
    eventually(lambda: lab.reached() == [True, False], 60, "the end of the rule")


def test_a_deleted_guest_leaves_no_filter_and_no_guarded_tap(lab):
    lab.operate("vm", "delete", "one", "--wait")
    filters = lab.host.run("virsh", "nwfilter-list")
    assert "nova-instance" not in filters
    assert "nova-secgroup" not in filters
    assert '"tap' not in lab.host.run("nft", "list", "set", "bridge", "micronova_guard", "guarded")
