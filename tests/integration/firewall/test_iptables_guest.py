"""A real guest behind iptables, from nova-manage to packets: what its groups admit gets to it, by both paths.

The tests are steps of one story, in order. Outside is routed by the host; a neighbour is in the guest's own bridge.
"""

from __future__ import annotations

import pytest

from tests.functional.harness import eventually
from tests.integration.filtered_guests import BOOT_S, CIDR, RoutedLab, furnished, rule_of

pytestmark = pytest.mark.real


class ChainedLab(RoutedLab):
    """A host that routes to its guests, and its chains of iptables."""

    def chains(self):
        """Our chains of guests, taps and groups."""
        saved = self.host.run("iptables-save", "-t", "filter")
        kinds = ("nova-compute-inst-", "nova-compute-tap", "nova-compute-sg-")
        return [line for line in saved.splitlines() if line.startswith(tuple(f":{kind}" for kind in kinds))]


@pytest.fixture(scope="module")
def lab(guest_image):
    with furnished(ChainedLab, guest_image, firewall_driver="iptables", network_manager="flatdhcp") as lab:
        yield lab


def test_a_guest_without_rules_gets_its_address_and_nobody_gets_to_it(lab):
    lab.operate("vm", "boot", "--name", "one", "--instance_type", "m1.nano", "--image", "tiny", "--wait")
    told = f"ADDRESS eth0 {lab.address}/24"
    eventually(lambda: told in lab.operate("vm", "console_log", "one").replace("\r", ""), BOOT_S, "DHCP")
    eventually(lambda: "GUEST-READY" in lab.operate("vm", "console_log", "one"), BOOT_S, "its marker")
    assert lab.reached() == [False, False, False, False]


def test_a_rule_lets_in_what_it_names_by_both_paths(lab):
    lab.operate("secgroup", "add-rule", "default", "icmp")
    eventually(lambda: lab.reached() == [True, True, False, False], 60, "answers to pings")
    lab.operate("secgroup", "add-rule", "default", "tcp", "80", "--cidr", CIDR)
    eventually(lambda: lab.reached() == [True, True, False, True], 60, "a connection")


def test_a_daemon_that_is_killed_leaves_the_rules_and_its_next_start_changes_none(lab):
    before = sorted(lab.chains())
    lab.daemon.kill()
    assert lab.reached() == [True, True, False, True]
    lab.daemon.start()
    assert sorted(lab.chains()) == before
    assert lab.reached() == [True, True, False, True]


def test_what_somebody_opens_by_hand_is_shut_again(lab):
    instance = lab.operate.ask("vm", "show", "one")["id"]
    lab.host.run("iptables", "-I", f"nova-compute-inst-{instance}", "-j", "nova-compute-admit")
    eventually(lambda: lab.reached() == [True, True, False, True], 60, "an audit")


def test_a_rule_that_is_withdrawn_lets_in_no_more(lab):
    lab.operate("secgroup", "delete-rule", rule_of(lab, "tcp"))
    lab.operate("secgroup", "delete-rule", rule_of(lab, "icmp"))
    eventually(lambda: lab.reached() == [False, False, False, False], 60, "silence")


def test_a_deleted_guest_leaves_no_chain_and_no_tap(lab):
    lab.operate("vm", "delete", "one", "--wait")
    assert lab.chains() == [":nova-compute-sg-fallback - [0:0]"]
    assert lab.operate.ask("vm", "list") == []
    assert '"tap' not in lab.host.run("nft", "list", "table", "bridge", "micronova").replace('"tap2163e*"', "")
