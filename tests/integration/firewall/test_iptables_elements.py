"""Elements that the kernel was given without nft: nft reads them as its own, and a refusal changes nothing."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Network

import pytest

from tests.integration.firewall.iptables_places import a_host, a_machine
from virt.errors import FirewallError
from virt.firewall import iptables_guard as guard
from virt.firewall.rules import instance_rules

pytestmark = pytest.mark.real

ROUTERS = (IPv6Network("fe80::/16"), IPv6Network("fe81::1/128"))


@pytest.fixture(scope="module")
def host():
    with a_host("nft") as made:
        yield made


def facts(number=5):
    """Everything that can be known of a tap: its name, and something in each set."""
    (tap,) = instance_rules(a_machine(number)).taps
    return tap.dev, guard.facts(replace(tap, ra_sources=ROUTERS, is_vpn=True))


def read(host):
    return guard.parse(host.execute(["nft", "-j", "list", "table", "bridge", "micronova"]))[1]


def test_nft_reads_what_it_has_not_written_and_takes_it_away(host):
    dev, known = facts()
    host.elements.feed(guard.change({}, {dev: known}))
    assert read(host) == {dev: known}
    assert {name for name, _ in known} == set(guard.SETS)
    host.execute(["nft", "-f", "-"], stdin=guard.change({dev: known}, {dev: None}))
    assert read(host) == {}


def test_what_nft_has_written_is_taken_away_without_it(host):
    dev, known = facts()
    host.execute(["nft", "-f", "-"], stdin=guard.change({}, {dev: known}))
    host.elements.feed(guard.change({dev: known}, {dev: None}))
    assert read(host) == {}


def test_a_range_takes_the_place_of_one_that_it_overlaps(host):
    dev, known = facts()
    wide, narrow = known - {("routers", "fe81::1")}, (known - {("routers", "fe80::/16")}) | {("routers", "fe80::1")}
    host.elements.feed(guard.change({}, {dev: wide}))
    host.elements.feed(guard.change({dev: wide}, {dev: narrow}))
    assert read(host) == {dev: narrow}
    host.elements.feed(guard.change({dev: narrow}, {dev: None}))


def test_a_change_that_is_refused_names_the_set_and_changes_nothing(host):
    dev, known = facts()
    host.elements.feed(guard.change({}, {dev: known}))
    other, more = facts(6)
    with pytest.raises(FirewallError, match="table bridge micronova: set own4: No such file or directory"):
        host.elements.feed(guard.change({"tapnone": frozenset({("own4", "10.9.0.9")})}, {"tapnone": None, other: more}))
    assert read(host) == {dev: known}
    host.elements.feed(guard.change({dev: known}, {dev: None}))


def test_two_thousand_guests_are_one_change(host):
    _, known = facts()
    many = {f"tap{number:010x}": known for number in range(2000)}
    host.elements.feed(guard.change({}, many))
    assert read(host) == many
    host.elements.feed(guard.change(many, dict.fromkeys(many)))
    assert read(host) == {}
