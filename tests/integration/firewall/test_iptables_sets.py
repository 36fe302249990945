"""Sets that the kernel was given without ipset: ipset reads them as its own, and a refusal changes nothing."""

from __future__ import annotations

import pytest

from tests.integration.firewall.iptables_places import a_host
from virt.errors import FirewallError
from virt.firewall import iptables_text as text

pytestmark = pytest.mark.real

MEMBERS = frozenset({"10.9.0.9", "10.9.0.10"})
RULES_4 = frozenset({"0.0.0.0/1,tcp:22", "128.0.0.0/1,tcp:22", "10.0.0.8/30,udp:0", "10.0.0.9,udp:65535"})
RULES_6 = frozenset({"::/1,tcp:22", "8000::/1,tcp:22", "fd00::/64,udp:53", "fd00::9,tcp:80"})
SETS = {"nova-g4-3": MEMBERS, "nova-g6-3": frozenset({"fd00::9"}), "nova-r4-7": RULES_4, "nova-r6-7": RULES_6}
NONE = dict.fromkeys(SETS)


@pytest.fixture(scope="module")
def host():
    with a_host("nft") as made:
        yield made


@pytest.fixture
def with_ipset(host):
    return lambda lines: host.execute(["ipset", "restore"], stdin=lines)


def read(host):
    return text.parse_sets(host.execute(["ipset", "save"]))


def test_ipset_reads_what_it_has_not_made_and_takes_it_away(host, with_ipset):
    host.sets.feed(text.sets({}, SETS, 100))
    assert read(host) == SETS
    with_ipset(text.sets(SETS, NONE, 100))
    assert read(host) == {}


def test_what_ipset_has_made_is_changed_and_taken_away_without_it(host, with_ipset):
    with_ipset(text.sets({}, SETS, 100))
    host.sets.feed(text.sets({}, SETS, 100))  # it is there already
    changed = SETS | {"nova-r4-7": frozenset({"10.0.0.8/30,udp:0"}), "nova-g4-3": frozenset({"10.9.0.11"})}
    host.sets.feed(text.sets(SETS, changed, 100))
    assert read(host) == changed
    host.sets.feed(text.sets(changed, NONE, 100))
    assert read(host) == {}


def test_a_set_without_room_is_told_and_keeps_its_members(host):
    there = {"nova-g4-3": frozenset(f"10.9.{n // 250}.{n % 250}" for n in range(1000))}
    host.sets.feed(text.sets({}, there, 1000))
    with pytest.raises(FirewallError, match="ipset: set nova-g4-3: Hash is full"):
        host.sets.feed("add nova-g4-3 10.8.0.1 -exist\n")
    assert read(host) == there
    host.sets.feed("destroy nova-g4-3\n")


def test_a_set_that_a_rule_asks_is_not_taken_away(host):
    host.sets.feed(text.sets({}, {"nova-r4-7": RULES_4}, 100))
    host.execute(["iptables-nft", "-A", "FORWARD", "-m", "set", "--match-set", "nova-r4-7", "src,dst"])
    with pytest.raises(FirewallError, match="set nova-r4-7: it is in use"):
        host.sets.feed("destroy nova-r4-7\n")
    host.execute(["iptables-nft", "-D", "FORWARD", "-m", "set", "--match-set", "nova-r4-7", "src,dst"])
    host.sets.feed("destroy nova-r4-7\n")


def test_thousands_of_elements_are_one_change(host):
    many = {"nova-r6-7": frozenset(f"fd00::{number:x},tcp:80" for number in range(1, 3000))}
    host.sets.feed(text.sets({}, many, 100))
    assert read(host) == many
    host.sets.feed("destroy nova-r6-7\n")
