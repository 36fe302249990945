"""What was told last is not undone by what was read earlier."""

from __future__ import annotations

import dataclasses
import time

import pytest

from tests.builders import a_group, a_guest, a_rule
from virt.firewall.latest import LatestFirewall
from virt.firewall.noop import NoopFirewall


class Recorder(NoopFirewall):
    """A firewall that keeps what it is told."""

    def __init__(self):
        self.told = []

    def prepare_instance_filter(self, spec):
        self.told.append(spec)

    def refresh_security_group_rules(self, specs):
        self.told += specs

    def audit(self, specs, rules):
        self.told += specs
        return []

    def repair(self, specs, rules):
        return self.audit(specs, rules)


OLD, NEW = a_group(a_rule(), name="old"), a_group(name="new")


@pytest.fixture
def inner():
    return Recorder()


@pytest.fixture
def firewall(inner):
    return LatestFirewall(inner)


def read_now(spec, **changes):
    return dataclasses.replace(spec, read_at=time.monotonic(), **changes)


def test_a_guest_that_was_refreshed_while_its_image_came_is_set_up_as_refreshed(firewall, inner):
    spec = read_now(a_guest(security_groups=(OLD,)))
    firewall.refresh_security_group_rules([dataclasses.replace(spec, security_groups=(NEW,))])
    firewall.prepare_instance_filter(spec)
    assert inner.told[-1].security_groups == (NEW,)


def test_a_guest_that_was_read_after_a_refresh_is_set_up_as_read(firewall, inner):
    spec = a_guest(security_groups=(OLD,))
    firewall.refresh_security_group_rules([spec])
    firewall.prepare_instance_filter(read_now(spec, security_groups=(NEW,)))
    assert inner.told[-1].security_groups == (NEW,)


def test_members_that_were_told_later_count(firewall, inner):
    group = a_group(a_rule(group_id=9), members={9: ("10.0.0.8",)})
    spec = read_now(a_guest(security_groups=(group,)))
    firewall.refresh_security_group_members(9, ["10.0.0.9"])
    firewall.prepare_instance_filter(spec)
    assert inner.told[-1].security_groups[0].members == {9: ("10.0.0.9",)}


def test_a_refresh_keeps_the_interfaces_that_a_guest_has(firewall, inner):
    spec = a_guest()
    firewall.prepare_instance_filter(spec)
    firewall.refresh_security_group_rules([dataclasses.replace(spec, vifs=(), security_groups=(NEW,))])
    assert (inner.told[-1].vifs, inner.told[-1].security_groups) == (spec.vifs, (NEW,))


def test_a_guest_that_came_while_an_audit_looked_keeps_its_filters(firewall, inner):
    spec = a_guest()
    firewall.prepare_instance_filter(spec)
    firewall.repair([], [])
    assert inner.told[-1] == spec


def test_a_guest_that_is_gone_is_not_audited(firewall, inner):
    spec = a_guest()
    firewall.prepare_instance_filter(spec)
    firewall.unfilter_instance(spec)
    inner.told.clear()
    firewall.repair([], [])
    assert inner.told == []


def test_an_audit_that_read_before_a_guest_was_changed_does_not_change_it_back(firewall, inner):
    before = read_now(a_guest(security_groups=(OLD,)))
    firewall.prepare_instance_filter(read_now(before, security_groups=(NEW,)))
    firewall.audit([before], [])
    assert inner.told[-1].security_groups == (NEW,)


@pytest.mark.parametrize("look", ["audit", "repair"])
def test_an_audit_that_looked_before_a_guest_went_does_not_bring_its_filters_back(firewall, inner, look):
    spec = read_now(a_guest())
    firewall.prepare_instance_filter(spec)
    firewall.unfilter_instance(spec)
    inner.told.clear()
    getattr(firewall, look)([spec], [])
    getattr(firewall, look)([], [])
    assert inner.told == []


def test_a_guest_that_comes_back_is_audited_again(firewall, inner):
    spec = read_now(a_guest())
    firewall.unfilter_instance(spec)
    firewall.prepare_instance_filter(spec)
    inner.told.clear()
    firewall.repair([spec], [])
    assert [one.name for one in inner.told] == [spec.name]
