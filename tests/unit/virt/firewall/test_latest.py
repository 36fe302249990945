"""What was told last is not undone by what was read earlier."""

from __future__ import annotations

import dataclasses
import threading
import time
from ipaddress import IPv4Interface

import pytest
from oslo_config import cfg

from tests.builders import a_group, a_guest, a_rule, a_vif
from tests.functional.harness import eventually
from virt.errors import FirewallError
from virt.firewall.conf import OPTS
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


def test_a_refresh_that_was_read_before_another_does_not_take_its_place(firewall, inner):
    before = read_now(a_guest(security_groups=(OLD,)))
    firewall.refresh_security_group_rules([read_now(before, security_groups=(NEW,))])
    firewall.refresh_security_group_rules([before])
    assert inner.told[-1].security_groups == (NEW,)


def test_a_refresh_that_was_read_before_a_guest_went_does_not_bring_its_filters_back(firewall, inner):
    spec = read_now(a_guest())
    firewall.unfilter_instance(spec)
    firewall.refresh_security_group_rules([spec])
    assert inner.told == []


class Slow(Recorder):
    """A firewall that takes its time until it may go on; `calls` is what it was told, as it began."""

    def __init__(self):
        super().__init__()
        self.calls, self.may_go_on = [], threading.Event()

    def _call(self, *call):
        self.calls.append(call)
        assert self.may_go_on.wait(20)
        if "bad" in str(call):
            raise FirewallError(f"{call} is refused")

    def prepare_instance_filter(self, spec):
        self._call("prepare", spec.name)

    def refresh_security_group_rules(self, specs):
        self._call("rules", sorted((spec.name, *(group.name for group in spec.security_groups)) for spec in specs))

    def refresh_security_group_members(self, group_id, members):
        self._call("members", group_id, *members)


class Callers:
    """Threads that call a firewall; `errors` has what came of each call, by its number."""

    def __init__(self, slow):
        self.slow, self.firewall = slow, LatestFirewall(slow)
        self.errors, self._threads = {}, []

    def call(self, method, *args):
        """Have a thread call, and return when it is in the firewall or waits for its turn."""
        number = len(self._threads)
        self._threads.append(threading.Thread(target=self._call, args=(number, method, args)))
        before = self._known()
        self._threads[-1].start()
        eventually(lambda: self.slow.calls and self._known() > before)

    def _known(self):
        return len(self.slow.calls) + len(self.firewall._refreshes._waiting) + len(self.firewall._line._places)

    def _call(self, number, method, args):
        self.errors[number] = None
        try:
            getattr(self.firewall, method)(*args)
        except FirewallError as exc:
            self.errors[number] = str(exc)

    def end(self):
        """What the firewall was told in all."""
        self.slow.may_go_on.set()
        for thread in self._threads:
            thread.join(20)
        return self.slow.calls


@pytest.fixture
def callers():
    made = Callers(Slow())
    yield made
    made.end()


def named(name, group):
    return a_guest(name=name, security_groups=(a_group(name=group),))


def test_refreshes_that_come_while_one_is_made_are_one_and_the_last_that_was_told_counts(callers):
    for number in range(20):
        callers.call("refresh_security_group_rules", [named("one", f"group-{number}"), named(f"guest-{number}", "g")])
    calls = callers.end()
    assert [kind for kind, _ in calls] == ["rules", "rules"]
    assert ("one", "group-19") in calls[1][1]
    assert len(calls[1][1]) == 20
    assert set(callers.errors.values()) == {None}


def test_members_that_are_told_again_while_others_are_made_are_made_once(callers):
    for number in range(20):
        callers.call("refresh_security_group_members", 9, [f"10.0.0.{number}"])
    assert callers.end() == [("members", 9, "10.0.0.0"), ("members", 9, "10.0.0.19")]


def test_each_of_a_burst_gets_its_own_error(callers):
    callers.call("refresh_security_group_rules", [named("first", "good")])
    for group in ("good", "bad", "better"):
        callers.call("refresh_security_group_rules", [named(f"guest-{group}", group)])
    callers.end()
    assert [number for number, error in callers.errors.items() if error] == [2]
    assert "guest-good" not in callers.errors[2]


def test_guests_are_set_up_side_by_side(callers):
    for name in ("one", "two", "three"):
        callers.call("prepare_instance_filter", named(name, "g"))
    eventually(lambda: len(callers.slow.calls) == 3)


@pytest.mark.parametrize(
    ("method", "args"),
    [("refresh_security_group_rules", ([named("one", "new")],)), ("audit", ([], [])), ("repair", ([], []))],
)
def test_what_concerns_many_guests_waits_for_one_that_is_set_up(callers, method, args):
    callers.call("prepare_instance_filter", named("one", "old"))
    callers.call(method, *args)
    eventually(lambda: len(callers.firewall._line._places) == 2)
    assert (callers.slow.calls, callers.slow.told) == ([("prepare", "one")], [])
    callers.end()
    assert len(callers.slow.calls + callers.slow.told) == 2


class Addresses:
    """Connections that only keeps whose were ended."""

    def __init__(self):
        self.forgotten, self.error = [], None

    def forget(self, addresses):
        self.forgotten.append(sorted(map(str, addresses)))
        if self.error:
            raise self.error


@pytest.fixture
def connections():
    return Addresses()


@pytest.fixture
def tracking(inner, connections):
    return LatestFirewall(inner, connections)


def at(*addresses):
    return a_guest(name="one", vifs=tuple(a_vif(addresses=(IPv4Interface(f"{one}/24"),)) for one in addresses))


def test_connections_end_when_an_address_comes_and_when_it_goes(tracking, connections):
    for spec in (at("10.0.0.5"), at("10.0.0.5"), at("10.0.0.5", "10.1.0.5"), at("10.1.0.5")):
        tracking.prepare_instance_filter(spec)
    tracking.unfilter_instance(at("10.1.0.5"))
    assert connections.forgotten == [["10.0.0.5"], [], ["10.1.0.5"], ["10.0.0.5"], ["10.1.0.5"]]


def test_a_guest_that_is_built_ends_connections_once(tracking, connections):
    spec = read_now(at("10.0.0.5"))
    tracking.unfilter_instance(spec)
    tracking.prepare_instance_filter(spec)
    tracking.unfilter_instance(spec)
    tracking.prepare_instance_filter(read_now(spec))
    assert connections.forgotten == [["10.0.0.5"], [], ["10.0.0.5"], ["10.0.0.5"]]


def test_a_guest_whose_filters_were_there_before_the_daemon_keeps_its_connections(tracking, connections):
    tracking.repair([at("10.0.0.5")], [])
    tracking.prepare_instance_filter(at("10.0.0.5"))
    assert connections.forgotten == [[]]


def test_a_guest_is_removed_though_its_connections_cannot_be_ended_but_none_starts(tracking, connections, caplog):
    connections.error = FirewallError("no conntrack")
    tracking.unfilter_instance(at("10.0.0.5"))
    assert "no conntrack" in caplog.text
    for _ in range(2):
        with pytest.raises(FirewallError, match="no conntrack"):
            tracking.prepare_instance_filter(at("10.0.0.5"))
    assert connections.forgotten == [["10.0.0.5"]] * 3


def test_where_nothing_is_filtered_no_tool_is_needed():
    conf = cfg.ConfigOpts()
    conf([], project="test")
    conf.register_opts(OPTS)
    LatestFirewall.from_conf(conf).init_host()
