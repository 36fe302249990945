"""The NWFilter firewall: what it does, in which order, and what it leaves."""

from __future__ import annotations

import dataclasses

import pytest

from tests.builders import a_group, a_guest, a_network, a_rule, a_vif
from tests.fakes.nwfilters import FakeFilters, FakeGuard, FakeKernel
from tests.functional.harness import eventually
from virt.errors import DriverConfigError, FirewallError
from virt.firewall.nwfilter import NWFilterFirewall
from virt.firewall.nwfilter_audit import checked
from virt.firewall.nwfilter_filters import group_name, instance_group_name, static_filters

FOLLOWING = a_group(a_rule(), a_rule(group_id=9), id=7, members={9: ("10.0.0.8",)})


@pytest.fixture
def filters():
    return FakeFilters()


@pytest.fixture
def guard():
    return FakeGuard()


@pytest.fixture
def kernel():
    return FakeKernel()


@pytest.fixture
def firewall(filters, guard, kernel):
    """The firewall of a daemon that has just started."""
    made = NWFilterFirewall(filters, guard, execute=kernel.execute)
    made.init_host()
    return made


def guest(number=1, *groups, **changes):
    return a_guest(**({"id": number, "name": f"instance-{number}", "security_groups": groups} | changes))


def own(filters):
    """The filters of guests and groups."""
    return {name for name in filters.kept if name.startswith(("nova-instance-", "nova-secgroup-"))}


def test_a_host_that_hides_bridged_packets_is_refused(filters, guard, kernel):
    kernel.sees_bridges = "0"
    with pytest.raises(DriverConfigError, match="bridge-nf-call-iptables is 0"):
        NWFilterFirewall(filters, guard, execute=kernel.execute).init_host()


def test_taps_are_guarded_and_filters_there_before_a_guest_starts(firewall, filters, guard):
    spec = guest(1, FOLLOWING)
    firewall.prepare_instance_filter(spec)
    assert guard.held().names == {spec.vifs[0].dev}
    assert guard.opened == set()
    assert own(filters) == {
        firewall.filter_name(spec, spec.vifs[0]), instance_group_name(spec.name), group_name(7)
    }  # fmt: skip


def test_a_guest_without_groups_has_a_filter_for_them_all_the_same(firewall, filters):
    firewall.prepare_instance_filter(guest(1))
    assert instance_group_name("instance-1") in filters.kept


def test_preparing_again_changes_nothing(firewall, filters):
    firewall.prepare_instance_filter(guest(1, FOLLOWING))
    filters.done.clear()
    firewall.prepare_instance_filter(guest(1, FOLLOWING))
    assert [name for _, name in filters.done if "secgroup-7" in name] == []


def test_the_cost_of_a_guest_does_not_grow_with_the_others(firewall, filters, kernel):
    costs = []
    for number in range(1, 60):
        before = len(filters.done) + len(kernel.texts)
        firewall.prepare_instance_filter(guest(number, a_group(id=7)))
        costs.append(len(filters.done) + len(kernel.texts) - before)
    assert len(set(costs[1:])) == 1


def test_a_tap_is_opened_when_libvirt_says_that_it_filters_it(firewall, filters, guard):
    spec = guest()
    firewall.prepare_instance_filter(spec)
    filters.taps[spec.vifs[0].dev] = firewall.filter_name(spec, spec.vifs[0])
    firewall.apply_instance_filter(spec)
    assert guard.opened == {spec.vifs[0].dev}


def test_a_tap_that_is_not_there_is_not_opened(firewall, guard):
    firewall.prepare_instance_filter(guest())
    firewall.apply_instance_filter(guest())
    assert guard.opened == set()


def test_a_tap_that_libvirt_will_not_filter_stays_shut(firewall, filters, guard, kernel):
    spec = guest()
    firewall.prepare_instance_filter(spec)
    filters.taps[spec.vifs[0].dev] = "somebody-elses"
    kernel.taps[spec.vifs[0].dev] = (1, 1)
    filters.bind = lambda *_: None
    with pytest.raises(FirewallError, match="filtered by somebody-elses"):
        firewall.apply_instance_filter(spec)
    assert guard.opened == set()


def test_a_guest_that_comes_from_another_host_is_opened_when_it_is_here(firewall, filters, guard):
    spec = guest()
    firewall.prepare_instance_filter(spec)
    firewall.expect_instance(spec)
    assert guard.opened == set()
    filters.taps[spec.vifs[0].dev] = firewall.filter_name(spec, spec.vifs[0])
    eventually(lambda: guard.opened == {spec.vifs[0].dev})


def test_a_guest_that_is_gone_leaves_nothing(firewall, filters, guard):
    vifs = (a_vif(), a_vif())
    spec = guest(1, FOLLOWING, vifs=vifs)
    firewall.prepare_instance_filter(spec)
    firewall.unfilter_instance(dataclasses.replace(spec, vifs=vifs[:1]))
    firewall.unfilter_instance(spec)
    assert (own(filters), guard.names) == (set(), set())


def test_an_interface_that_is_gone_leaves_no_filter(firewall, filters):
    vifs = (a_vif(), a_vif())
    firewall.prepare_instance_filter(guest(1, vifs=vifs))
    firewall.prepare_instance_filter(guest(1, vifs=vifs[:1]))
    assert firewall.filter_name(guest(), vifs[1]) not in filters.kept


def test_a_group_goes_with_its_last_guest(firewall, filters):
    for number in (1, 10, 11, 100):
        firewall.prepare_instance_filter(guest(number, a_group(id=7)))
    for number in (1, 10, 11):
        firewall.unfilter_instance(guest(number))
        assert group_name(7) in filters.kept
    firewall.unfilter_instance(guest(100))
    assert own(filters) == set()


def test_a_change_of_a_group_changes_one_filter(firewall, filters):
    specs = [guest(number, a_group(a_rule(), id=7)) for number in (1, 2, 3)]
    for spec in specs:
        firewall.prepare_instance_filter(spec)
    filters.done.clear()
    changed = a_group(a_rule(), a_rule(from_port=80, to_port=80), id=7)
    firewall.refresh_security_group_rules([dataclasses.replace(one, security_groups=(changed,)) for one in specs])
    assert filters.done == [("define", group_name(7))]


def test_a_guest_that_left_a_group_is_changed_and_the_group_goes(firewall, filters):
    spec = guest(1, a_group(id=7), a_group(id=8))
    firewall.prepare_instance_filter(spec)
    filters.done.clear()
    firewall.refresh_security_group_rules([dataclasses.replace(spec, security_groups=(a_group(id=8),))])
    assert filters.done == [("define", instance_group_name("instance-1")), ("undefine", group_name(7))]


def test_guests_that_are_not_here_are_passed_over(firewall, filters):
    firewall.refresh_security_group_rules([guest(5, a_group(id=7))])
    assert own(filters) == set()


def test_a_change_of_members_changes_the_groups_that_follow_them(firewall, filters):
    firewall.prepare_instance_filter(guest(1, FOLLOWING, a_group(id=8)))
    filters.done.clear()
    firewall.refresh_security_group_members(9, ["10.0.0.77", "fd00::77"])
    assert filters.done == [("define", group_name(7))]
    assert "10.0.0.77" in filters.kept[group_name(7)]
    firewall.refresh_security_group_members(10, ["10.0.0.77"])
    assert len(filters.done) == 1


def test_the_providers_rules_are_one_filter(firewall, filters):
    filters.done.clear()
    firewall.refresh_provider_fw_rules([{"protocol": "tcp", "from_port": "25", "to_port": "25", "cidr": "0.0.0.0/0"}])
    assert filters.done == [("define", "nova-provider")]


def test_what_libvirt_makes_less_of_is_refused_and_taken_back(firewall, filters):
    true_define = filters.define
    filters.define = lambda xml: true_define(xml.replace(' srcipmask="8"', ""))
    group = a_group(a_rule(cidr="10.0.0.0/8"), id=7)
    with pytest.raises(FirewallError, match="made something else of it"):
        firewall.prepare_instance_filter(guest(1, group))
    assert group_name(7) not in filters.kept


def test_a_refusal_is_told_in_libvirts_words(firewall, filters):
    filters.refuse = group_name(7)
    with pytest.raises(FirewallError, match=r"nova-secgroup-7: referenced filter"):
        firewall.prepare_instance_filter(guest(1, a_group(id=7)))


def test_all_of_a_guests_filters_must_be_there(firewall, filters):
    spec = guest()
    assert not firewall.instance_filter_exists(spec)
    firewall.prepare_instance_filter(spec)
    assert firewall.instance_filter_exists(spec)
    del filters.kept[instance_group_name(spec.name)]
    assert not firewall.instance_filter_exists(spec)


def test_the_static_filters_are_put_right_at_start(filters, guard, kernel):
    filters.kept["nova-base"] = "<filter name='nova-base'><uuid>6c4a1b3e-0000-0000-0000-000000000000</uuid></filter>"
    NWFilterFirewall(filters, guard, execute=kernel.execute).init_host()
    assert {one.name for one in static_filters()} <= set(filters.kept)
    assert "6c4a1b3e" in filters.kept["nova-base"]
    assert "nova-no-ip-spoofing" in filters.kept["nova-base"]


def test_a_daemon_that_starts_first_waits_for_what_libvirt_still_does(filters, guard, kernel):
    for _ in range(2):
        filters.done.clear()
        NWFilterFirewall(filters, guard, execute=kernel.execute).init_host()
        assert filters.done[0] == ("define", "nova-turn")


def running(firewall, filters, kernel, spec):
    """Start a guest, for all that can be seen from outside."""
    firewall.prepare_instance_filter(spec)
    for vif in spec.vifs:
        filters.taps[vif.dev] = firewall.filter_name(spec, vif)
        kernel.taps[vif.dev] = (6, 8)
    firewall.apply_instance_filter(spec)
    return spec


def without_v6(**changes):
    return guest(vifs=(a_vif(network=a_network(gateway=None)),), **changes)


def drifts(found):
    return sorted({(one.what.split()[0], one.problem, one.opened) for one in found if "chain" not in one.what})


def test_what_is_missing_or_changed_is_told_and_mended(firewall, filters, kernel):
    spec = running(firewall, filters, kernel, without_v6())
    filters.kept.pop(instance_group_name(spec.name))
    filters.kept[firewall.filter_name(spec, spec.vifs[0])] = "<filter name='x' chain='root'/>"
    found = firewall.repair([spec], [])
    assert ("filter", "is missing", False) in drifts(found)
    assert ("filter", "is not what the rules say", True) in drifts(found)
    assert not [one for one in firewall.audit([spec], []) if one.what.startswith("filter")]


def test_filters_of_no_guest_here_are_told_and_removed(firewall, filters):
    firewall.prepare_instance_filter(guest(9, a_group(id=7)))
    found = firewall.repair([], [])
    assert {problem for _, problem, _ in drifts(found)} == {"is of no guest here"}
    assert own(filters) == set()


def test_a_tap_that_the_kernel_does_not_filter_is_shut(firewall, filters, guard, kernel):
    spec = running(firewall, filters, kernel, without_v6())
    kernel.taps[spec.vifs[0].dev] = (2, 2)
    found = firewall.repair([spec], [])
    assert [(what, opened) for what, problem, opened in drifts(found) if "kernel has 2" in problem] == [("tap", True)]
    assert guard.opened == set()


def test_a_tap_that_runs_without_a_filter_gets_one(firewall, filters, guard, kernel):
    spec = running(firewall, filters, kernel, without_v6())
    filters.taps[spec.vifs[0].dev] = ""
    found = firewall.repair([spec], [])
    assert any("filters it by nothing" in problem and opened for _, problem, opened in drifts(found))
    assert filters.taps[spec.vifs[0].dev] == firewall.filter_name(spec, spec.vifs[0])


def test_one_filter_that_cannot_be_mended_keeps_no_other_from_being_mended(firewall, filters, caplog):
    filters.refuse = group_name(7)
    firewall.repair([guest(1, a_group(id=7)), guest(2, a_group(id=8))], [])
    assert group_name(8) in filters.kept
    assert "filter nova-secgroup-7 cannot be mended" in caplog.text


class Rebuilding:
    """libvirt that makes rules anew at each change of a filter. `seen`: which taps were open then."""

    def __init__(self, filters, guard, kernel, *, heals):
        self.seen, self._define, self._guard, self._kernel, self._heals = [], filters.define, guard, kernel, heals
        filters.define = self

    def __call__(self, xml):
        self.seen.append(set(self._guard.opened))
        self._define(xml)
        if self._heals:
            self._kernel.half.clear()


@pytest.mark.parametrize(
    "line",
    [
        "-A PREROUTING -i tapa -j libvirt-J-tapa",
        "-A POSTROUTING -o tapa -j libvirt-P-tapa",
        "-A libvirt-I-tapa -p IPv4 -j J-tapa-ipv4",
    ],
)
def test_rules_with_the_names_of_unfinished_ones_are_half_made(line):
    saved = "-A PREROUTING -i tapa -j libvirt-I-tapa\n-A libvirt-I-tapa -p IPv4 -j I-tapa-ipv4\n"
    assert checked(lambda *_, **__: saved) == {"tapa"}
    assert checked(lambda *_, **__: f"{saved}{line}\n") == set()


@pytest.mark.parametrize("heals", [True, False])
def test_what_libvirt_left_half_made_is_made_anew_behind_shut_taps_before_the_next_change(
    firewall, filters, guard, kernel, heals
):
    spec, other = (running(firewall, filters, kernel, guest(number, a_group(id=7))) for number in (1, 2))
    half, whole = spec.vifs[0].dev, other.vifs[0].dev
    kernel.half.add(half)
    libvirt = Rebuilding(filters, guard, kernel, heals=heals)
    changed = dataclasses.replace(spec, security_groups=(a_group(a_rule(from_port=80, to_port=80), id=7),))
    firewall.refresh_security_group_rules([changed])
    assert libvirt.seen == [{whole}] * 2 + [{half, whole}] if heals else [{whole}] * 7
