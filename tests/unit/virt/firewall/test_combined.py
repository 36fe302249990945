"""libvirt's filters and iptables together: which of the two does what, in which order, and what is left of errors."""

from __future__ import annotations

import dataclasses
import re

import pytest
from lxml import etree
from oslo_config import cfg

from tests.builders import a_group, a_guest, a_rule, a_vif
from tests.fakes.nwfilters import FakeFilters, FakeKernel
from tests.iptables_kernel import Kernel
from virt.errors import DriverConfigError, FirewallError
from virt.firewall.base import load
from virt.firewall.combined import CombinedFirewall
from virt.firewall.conf import OPTS
from virt.firewall.iptables import IptablesFirewall
from virt.firewall.iptables_host import FilterHost
from virt.firewall.nwfilter import NWFilterFirewall
from virt.firewall.nwfilter_basics import BasicFilters
from virt.network.conf import OPTS as NETWORK_OPTS

OF_IPTABLES = re.compile(r"(tcp|udp|sctp|icmp|icmpv6|all|igmp|esp|ah|udplite)(-ipv6)?")


class Place:
    """A host in memory: `kernel` is what iptables sees of it, `seen` what libvirt's rules are looked up in."""

    def __init__(self):
        self.kernel, self.filters, self.seen = Kernel(), FakeFilters(), FakeKernel()
        self.firewall = self.start()
        self.plain = set(self.kernel.chains[4])

    def start(self):
        """The firewall of a daemon that starts now."""
        groups = IptablesFirewall(FilterHost(self.kernel.execute), mark=1 << 25, max_members=65536)
        made = CombinedFirewall(groups, BasicFilters(self.filters, execute=self.seen.execute))
        made.init_host()
        return made

    def run(self, spec):
        """Start a guest, for all that can be seen from outside."""
        self.firewall.prepare_instance_filter(spec)
        for vif in spec.vifs:
            self.filters.taps[vif.dev] = self.firewall.filter_name(spec, vif)
            self.seen.taps[vif.dev] = (0, 0)
        self.firewall.apply_instance_filter(spec)
        return spec

    @property
    def own(self):
        """libvirt's filters of guests and groups."""
        return {name for name in self.filters.kept if name.startswith(("nova-instance-", "nova-secgroup-"))}

    @property
    def chains(self):
        """iptables' chains of guests and groups, by name."""
        return sorted(set(self.kernel.chains[4]) - self.plain)

    def refuse_of_iptables(self, times=2):
        """Have the next changes of chains refused."""
        self.kernel.failures += [("iptables-restore", 1, "refused")] * times


@pytest.fixture
def place():
    return Place()


def guest(number=1, *rules, **changes):
    group = a_group(*(rules or (a_rule(),)), id=7)
    return a_guest(**({"id": number, "name": f"instance-{number:08x}", "security_groups": (group,)} | changes))


def configured(name, **flags):
    conf = cfg.ConfigOpts()
    conf([], project="test")
    conf.register_opts(OPTS)
    conf.register_opts(NETWORK_OPTS)
    for flag, value in (flags | {"firewall_driver": name}).items():
        conf.set_override(flag, value)
    return conf


@pytest.mark.parametrize("name", ["nwfilter+iptables", "nova.virt.libvirt_conn.IptablesFirewallDriver"])
def test_it_is_found_by_its_name_and_by_that_of_2011(name):
    assert isinstance(load(configured(name), FakeFilters()), CombinedFirewall)


def test_it_needs_libvirt():
    with pytest.raises(DriverConfigError, match=r"firewall_driver = nwfilter\+iptables: .*not libvirt"):
        load(configured("nwfilter+iptables"))


@pytest.mark.parametrize("manager", ["flatdhcp", "vlan", "nova.network.manager.VlanManager"])
@pytest.mark.parametrize("routing", ["nat", "routed"])
def test_where_hosts_route_libvirts_filters_alone_are_refused_and_what_works_is_named(manager, routing):
    flags = {"network_manager": manager, "network_routing": routing}
    with pytest.raises(DriverConfigError) as told:
        load(configured("nwfilter", **flags), FakeFilters())
    for words in ("firewall_driver = nwfilter:", f"network_manager = {manager}", f"network_routing = {routing}"):
        assert words in str(told.value)
    assert "use firewall_driver = iptables or nwfilter+iptables" in str(told.value)
    assert isinstance(load(configured("nwfilter+iptables", **flags), FakeFilters()), CombinedFirewall)


@pytest.mark.parametrize("flags", [{}, {"network_manager": "flatdhcp", "network_routing": "none"}], ids=str)
def test_where_hosts_do_not_route_libvirts_filters_alone_will_do(flags):
    assert isinstance(load(configured("nwfilter", **flags), FakeFilters()), NWFilterFirewall)


def test_a_host_that_cannot_filter_is_refused_in_the_name_of_the_flag(place):
    place.kernel.switches["bridge-nf-call-iptables"] = "0"
    with pytest.raises(DriverConfigError, match=r"^firewall_driver = nwfilter\+iptables: bridged packets would go"):
        place.start()


def test_an_interface_names_a_filter_of_which_libvirt_makes_no_rule_of_iptables(place):
    spec = guest()
    place.firewall.prepare_instance_filter(spec)
    left, elements = [place.firewall.filter_name(spec, spec.vifs[0])], set()
    while left:
        root = etree.fromstring(place.filters.kept[left.pop()].encode())
        left += [ref.get("filter") for ref in root.findall("filterref")]
        elements |= {one.tag for rule in root.findall("rule") for one in rule}
    assert elements == {"mac", "arp", "ip", "ipv6"}
    assert not any(map(OF_IPTABLES.fullmatch, elements))


def test_what_iptables_refuses_leaves_libvirt_with_no_filter_to_start_a_guest_by(place):
    place.refuse_of_iptables()
    with pytest.raises(FirewallError, match="refused"):
        place.firewall.prepare_instance_filter(guest())
    assert place.own == set()


def test_what_libvirt_refuses_leaves_the_guest_behind_iptables(place):
    spec = guest()
    place.filters.refuse = place.firewall.filter_name(spec, spec.vifs[0])
    with pytest.raises(FirewallError, match=place.filters.refuse):
        place.firewall.prepare_instance_filter(spec)
    assert place.chains
    assert place.firewall._groups.instance_filter_exists(spec)


def test_a_guest_that_still_runs_keeps_both_its_filters(place):
    spec = place.run(guest())
    with pytest.raises(FirewallError, match="in use"):
        place.firewall.unfilter_instance(spec)
    assert place.firewall.instance_filter_exists(spec)
    assert place.firewall.audit([spec], []) == []


def test_a_guest_that_is_gone_leaves_nothing(place):
    chains = {name: list(rules) for name, rules in place.kernel.chains[4].items()}
    vifs = (a_vif(), a_vif())
    place.firewall.prepare_instance_filter(guest(vifs=vifs))
    place.firewall.unfilter_instance(guest(vifs=vifs[:1]))
    place.firewall.unfilter_instance(guest(vifs=vifs[:1]))
    assert (place.own, place.kernel.chains[4], place.kernel.elements) == (set(), chains, set())


def test_an_interface_that_is_gone_leaves_no_filter(place):
    vifs = (a_vif(), a_vif())
    place.firewall.prepare_instance_filter(guest(vifs=vifs))
    place.firewall.prepare_instance_filter(guest(vifs=vifs[:1]))
    assert place.own == {place.firewall.filter_name(guest(), vifs[0])}


def test_groups_members_and_the_provider_are_the_matter_of_iptables_alone(place):
    spec = guest(1, a_rule(group_id=9))
    place.firewall.prepare_instance_filter(spec)
    place.filters.done.clear()
    changed = a_group(a_rule(from_port=80, to_port=80), a_rule(group_id=9), id=7)
    place.firewall.refresh_security_group_rules([dataclasses.replace(spec, security_groups=(changed,))])
    place.firewall.refresh_security_group_members(9, ["10.0.0.77"])
    place.firewall.refresh_provider_fw_rules([{"protocol": "tcp", "from_port": "25", "to_port": "25", "cidr": "::/0"}])
    assert place.filters.done == []
    assert place.kernel.sets["nova-g4-9"] == {"10.0.0.77"}


def test_both_must_have_a_guests_filters(place):
    spec = guest()
    assert not place.firewall.instance_filter_exists(spec)
    place.firewall.prepare_instance_filter(spec)
    assert place.firewall.instance_filter_exists(spec)
    del place.filters.kept[place.firewall.filter_name(spec, spec.vifs[0])]
    assert not place.firewall.instance_filter_exists(spec)


def test_a_tap_that_runs_without_libvirts_filter_gets_it(place):
    spec = guest()
    place.firewall.prepare_instance_filter(spec)
    dev, name = spec.vifs[0].dev, place.firewall.filter_name(spec, spec.vifs[0])
    place.filters.taps[dev], place.seen.taps[dev] = "", (0, 0)
    place.firewall.apply_instance_filter(spec)
    assert place.filters.taps[dev] == name


def test_what_is_wrong_in_libvirt_is_told_once_and_mended(place):
    spec = place.run(guest(vifs=(a_vif(), a_vif())))
    names = [place.firewall.filter_name(spec, vif) for vif in spec.vifs]
    place.filters.taps[spec.vifs[0].dev] = "somebody-elses"
    place.filters.kept["nova-instance-gone-0216"] = "<filter name='nova-instance-gone-0216'/>"
    place.filters.kept[names[1]] = f"<filter name='{names[1]}'/>"
    found = place.firewall.repair([spec], [])
    assert sorted((one.what.split()[0], one.problem.partition(" ")[0]) for one in found) == [
        ("filter", "is"), ("filter", "is"), ("tap", "libvirt")
    ]  # fmt: skip
    assert place.filters.taps[spec.vifs[0].dev] == names[0]
    assert place.firewall.audit([spec], []) == []


def test_a_tap_whose_packets_the_kernel_does_not_check_gets_its_rules_anew(place):
    spec = place.run(guest())
    true_execute = place.seen.execute
    place.firewall._basics._execute = lambda cmd, **more: "" if cmd[0] == "ebtables-save" else true_execute(cmd, **more)
    place.filters.done.clear()
    (found,) = place.firewall.repair([spec], [])
    assert "does not check" in found.problem
    assert place.filters.done == [("define", place.firewall.filter_name(spec, spec.vifs[0]))] * 2


def test_nothing_has_passed_that_one_of_the_two_held(place):
    spec = place.run(guest())
    place.filters.taps[spec.vifs[0].dev] = ""
    assert [one.opened for one in place.firewall.audit([spec], [])] == [False]
    place.kernel.chains[4][place.chains[0]].insert(0, "-j ACCEPT")
    assert [one.opened for one in place.firewall.audit([spec], [])] == [True, True]


def test_what_nwfilter_alone_needed_goes_once_when_iptables_filters_every_guest(place):
    place.refuse_of_iptables()
    place.kernel.chains[4][next(iter(place.plain))].append("-j ACCEPT")
    with pytest.raises(FirewallError, match="refused"):
        place.firewall.repair([guest()], [])
    assert not [text for text in place.seen.texts if text.startswith("nft")]
    for _ in range(2):
        place.firewall.repair([guest()], [])
    removed = "nft add table bridge micronova_guard; delete table bridge micronova_guard"
    assert [text for text in place.seen.texts if text.startswith("nft")] == [removed]


def test_what_iptables_cannot_mend_is_raised_and_libvirts_is_mended(place):
    spec = place.run(guest())
    place.kernel.chains[4][place.chains[0]].insert(0, "-j ACCEPT")
    place.filters.kept.pop("nova-vpn")
    place.refuse_of_iptables()
    with pytest.raises(FirewallError, match="refused"):
        place.firewall.repair([spec], [])
    assert "nova-vpn" in place.filters.kept


def test_what_libvirt_cannot_mend_is_told_and_the_rest_is_mended(place, caplog):
    one, two = place.run(guest(1)), place.run(guest(2))
    names = [place.firewall.filter_name(spec, spec.vifs[0]) for spec in (one, two)]
    for name in names:
        place.filters.kept[name] = f"<filter name='{name}'/>"
    place.filters.refuse = names[0]
    place.firewall.repair([one, two], [])
    assert f"filter {names[0]} cannot be mended" in caplog.text
    assert [drift.what for drift in place.firewall.audit([one, two], [])] == [f"filter {names[0]}"]


@pytest.mark.parametrize("template", ["instance-{:08x}", "vm-{}", "{}"])
def test_guest_1_goes_while_10_and_11_and_100_stay_filtered(place, template):
    one, *others = (place.run(guest(number, name=template.format(number))) for number in (1, 10, 11, 100))
    place.filters.taps.pop(one.vifs[0].dev)
    place.firewall.unfilter_instance(one)
    assert place.own == {place.firewall.filter_name(spec, spec.vifs[0]) for spec in others}
    assert all(place.firewall.instance_filter_exists(spec) for spec in others)
    assert place.firewall.audit(others, []) == []


def test_the_first_change_after_a_restart_leaves_every_guest_filtered(place):
    old = [place.run(guest(number)) for number in (1, 10, 11, 100)]
    place.filters.done.clear()
    place.firewall, new = place.start(), guest(12)
    place.firewall.prepare_instance_filter(new)
    assert place.filters.done == [("define", place.firewall.filter_name(new, new.vifs[0]))]
    assert place.firewall.audit([*old, new], []) == []
