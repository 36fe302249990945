"""The kernel tells when somebody removes packet filters, and our own changes are no such thing."""

from __future__ import annotations

import pytest

from tests.builders import a_group, a_rule
from tests.functional.harness import eventually
from tests.integration.firewall.iptables_places import _within, a_host, a_machine
from virt.firewall.backstop import Backstop
from virt.firewall.guard import TapGuard
from virt.firewall.removals import Removals

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def host():
    with a_host("nft") as made:
        Backstop(made.execute).ensure()
        TapGuard(made.execute).ensure(["tapa"])
        yield made


@pytest.fixture
def removals(host):
    host.firewall.repair([], [])
    Backstop(host.execute).ensure()
    TapGuard(host.execute).ensure(["tapa"])
    made = _within(host.name, Removals)
    yield made
    made.close()


@pytest.mark.parametrize(
    "command",
    ["nft flush ruleset", "nft delete table bridge micronova", "nft delete table ip6 filter", "iptables -F"],
)
def test_what_opens_guests_is_heard(host, removals, command):
    host.execute(command.split())
    eventually(removals.heard)
    assert not removals.heard()


def test_our_own_changes_are_not_heard_as_removals(host, removals):
    spec = a_machine(5, a_group(a_rule(), a_rule(group_id=9), id=7, members={9: ("10.9.0.8",)}))
    for _ in range(2):
        firewall = host.start_firewall()
        firewall.repair([spec], [])
        firewall.prepare_instance_filter(spec)
        firewall.refresh_security_group_rules([a_machine(5, a_group(id=7))])
        firewall.unfilter_instance(spec)
        TapGuard(host.execute).ensure(["tapb"])
        TapGuard(host.execute).forget(["tapb"])
        Backstop(host.execute).ensure()
    host.execute(["nft", "add table inet theirs; delete table inet theirs"])
    assert not removals.heard()
