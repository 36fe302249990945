"""A real guest behind libvirt's filters, from nova-manage to packets; the tests are steps of one story, in order."""

from __future__ import annotations

import functools
import sys

import pytest

from tests.functional.harness import Daemon, eventually
from tests.integration.firewall.test_iptables_guest import BOOT_S, CIDR, Lab, _connect, _furnish, rule_of
from tests.integration.network.places import end_all_in, places
from tests.integration.operators import Operator
from tests.integration.servers import LibvirtHost, running, scratch_folder

pytestmark = pytest.mark.real


class BridgedLab(Lab):
    """A host whose guests are bridged only, behind libvirt's filters, and a neighbour in the bridge."""

    def __init__(self, host, outside, neighbour, folder):
        self.host, self.outside, self.neighbour = host, outside, neighbour
        self.netns = f"/proc/{host.pid}/ns/net"
        self.daemon = Daemon(
            folder, "hosta", inside=["nsenter", f"--net={self.netns}", "--"], compute_driver="libvirt",
            libvirt_uri=host.uri, libvirt_type="qemu", networks_path=folder / "networks", force_config_drive="true",
            firewall_driver="nwfilter", filter_audit_interval=2,
        )  # fmt: skip
        self.operate = Operator(self.daemon.write_config())

    def serves(self, place):
        """True when the guest takes a connection of HTTP from there."""
        connect = f"import socket; socket.create_connection(({self.address!r}, 80), 3)"
        return place.succeeds(sys.executable, "-c", connect)

    def reached(self):
        """Whether the neighbour gets an answer: to a ping, to HTTP."""
        return [self.neighbour.pings(self.address), self.serves(self.neighbour)]


@pytest.fixture(scope="module")
def lab(guest_image):
    host_kind = functools.partial(LibvirtHost, name="filtered", network=True)
    with scratch_folder() as folder, places(2) as (outside, neighbour), running(host_kind) as host:
        _connect(host, outside, neighbour)
        lab = BridgedLab(host, outside, neighbour, folder)
        _furnish(lab.operate, guest_image)
        try:
            with lab.daemon:
                yield lab
        finally:
            end_all_in(lab.netns)


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
