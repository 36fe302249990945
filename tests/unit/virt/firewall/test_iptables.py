"""The iptables firewall on a kernel in memory: what it makes, what that costs, and what is left when it is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface

import pytest
from oslo_config import cfg

from tests.builders import a_group, a_guest, a_network, a_rule, a_vif
from tests.iptables_interpreter import rules_reached, rules_reached_once
from tests.iptables_kernel import Kernel
from virt.errors import DriverConfigError, FirewallError
from virt.firewall.base import load
from virt.firewall.conf import OPTS
from virt.firewall.iptables import IptablesFirewall
from virt.firewall.iptables_host import FilterHost
from virt.spec import InstanceSpec, Network

MAIL = {"protocol": "tcp", "from_port": "25", "to_port": "25", "cidr": "0.0.0.0/0"}
WEB, PING = a_rule(from_port=80, to_port=80), a_rule(protocol="icmp", from_port=8, to_port=-1)
IPV4, BOTH = a_network(), a_network(cidr_v6="fd00::/64")


def a_firewall(kernel: Kernel, **changes: object) -> IptablesFirewall:
    """A daemon's firewall, started on this kernel."""
    firewall = IptablesFirewall(
        FilterHost(kernel.execute, variant="nft"), **({"mark": 0x2000000, "max_members": 65536} | changes)
    )
    firewall.init_host()
    kernel.calls.clear()
    return firewall


def a_member(
    number: int,
    *rules: object,
    members: tuple[str, ...] = ("10.0.0.9",),
    group: int = 7,
    network: Network = IPV4,
) -> InstanceSpec:
    """Guest `number` in a group that admits ssh, names from group 3, and these."""
    names = a_rule(protocol="udp", from_port=53, to_port=53, group_id=3)
    mac, address = f"02:16:3e:00:{number >> 8:02x}:{number & 255:02x}", IPv4Interface(f"10.0.0.{number % 250}/24")
    vif = a_vif(mac=mac, addresses=(address,), network=network)
    groups = (a_group(a_rule(), names, *rules, id=group, members={3: members}),)
    return a_guest(id=number, vifs=(vif,), security_groups=groups)


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def firewall(kernel: Kernel) -> IptablesFirewall:
    return a_firewall(kernel)


def a_guest_with_everything() -> InstanceSpec:
    """Both families, and every kind of rule."""
    network = a_network(cidr_v6="fd00::/64", gateway_v6=IPv6Address("fe80::1"))
    vif = a_vif(
        mac="02:16:3e:01:02:03",
        network=network,
        addresses=(IPv4Interface("10.0.0.5/24"),),
        addresses_v6=(IPv6Interface("fd00::5/64"),),
    )
    ping = a_rule(protocol="icmp", from_port=8, to_port=-1)
    everything = a_rule(protocol=None, from_port=-1, to_port=-1, cidr="fd05::/16")
    group = a_group(a_rule(), a_rule(from_port=1, to_port=99, group_id=3), ping, everything, members={3: ("10.0.0.9",)})
    return a_guest(id=1, vifs=(vif,), security_groups=(group,))


def test_a_host_and_its_first_guest_are_written_so(kernel, golden):
    host, spec = FilterHost(kernel.execute), a_guest_with_everything()
    firewall = IptablesFirewall(host, mark=0x2000000, max_members=65536, allow_project_net_traffic=True)
    firewall.init_host()
    firewall.prepare_instance_filter(spec)
    firewall.refresh_provider_fw_rules([MAIL])
    firewall.unfilter_instance(spec)
    golden("iptables/first_guest.txt", "".join(f"# {program}\n{text}" for program, text in kernel.calls if text))


def test_the_flag_makes_one():
    conf = cfg.ConfigOpts()
    conf.register_opts(OPTS)
    conf([])
    conf.set_override("firewall_driver", "iptables")
    assert isinstance(load(conf), IptablesFirewall)


def test_removing_guest_1_leaves_10_and_11_and_100_as_they_are(kernel, firewall):
    others = [a_member(number) for number in (10, 11, 100)]
    for spec in others:
        firewall.prepare_instance_filter(spec)
    before = {name: list(rules) for name, rules in kernel.chains[4].items()}
    firewall.prepare_instance_filter(a_member(1))
    firewall.unfilter_instance(a_member(1))
    assert kernel.chains[4] == before
    assert firewall.audit(others, []) == []


def test_the_first_change_after_a_restart_touches_no_other_guest(kernel, firewall):
    old = [a_member(number) for number in (10, 11)]
    for spec in old:
        firewall.prepare_instance_filter(spec)
    restarted = a_firewall(kernel)
    restarted.prepare_instance_filter(a_member(12))
    assert restarted.audit([*old, a_member(12)], []) == []
    assert not any("inst-10" in text for _, text in kernel.calls)


def test_a_restart_writes_no_rule_of_iptables(kernel, firewall):
    firewall.prepare_instance_filter(a_member(1))
    kernel.calls.clear()
    IptablesFirewall(FilterHost(kernel.execute), mark=0x2000000, max_members=9).init_host()
    assert (kernel.fed, len(kernel.calls)) == (["nft"], 11)


@pytest.mark.parametrize("others", [10, 500])
@pytest.mark.parametrize(
    ("network", "programs", "come", "gone"),
    [(IPV4, ["iptables-restore"], 966, 569), (BOTH, ["ip6tables-restore", "iptables-restore"], 1595, 869)],
)
def test_a_guest_costs_the_same_commands_and_bytes_beside_10_and_beside_500(
    kernel, firewall, others, network, programs, come, gone
):
    firewall.repair([a_member(number, group=number, network=network) for number in range(1000, 1000 + others)], [])
    new = a_member(1, group=1, network=network)
    kernel.calls.clear()
    firewall.prepare_instance_filter(new)
    assert (kernel.fed, _fed_bytes(kernel)) == (["ipset", *programs, "nft"], come)
    kernel.calls.clear()
    firewall.unfilter_instance(new)
    assert (kernel.fed, _fed_bytes(kernel)) == (["nft", *programs, "ipset"], gone)


def _fed_bytes(kernel: Kernel) -> int:
    return sum(len(text) for _, text in kernel.calls)


@pytest.mark.parametrize("network", [IPV4, BOTH])
@pytest.mark.parametrize(("reached", "rules"), [(rules_reached_once, [13, 19]), (rules_reached, [45, 68])])
def test_a_guest_gives_the_kernel_the_same_rules_to_check_beside_10_and_beside_500(
    kernel, firewall, network, reached, rules
):
    """What nftables checks at a change: what can be reached, once for each hook; older kernels, once for each way."""
    added, nine = [], [a_rule(from_port=port, to_port=port) for port in range(80, 89)]
    for others in (10, 500):
        guests = [a_member(number, *nine, group=number, network=network) for number in range(1000, 1000 + others)]
        firewall.repair(guests, [])
        before = _checked(kernel, reached)
        firewall.prepare_instance_filter(a_member(1, *nine, group=1, network=network))
        added.append(_checked(kernel, reached) - before)
        firewall.unfilter_instance(a_member(1, group=1, network=network))
    assert added == [rules[network is BOTH]] * 2


def _checked(kernel: Kernel, reached: Callable[..., int]) -> int:
    return sum(reached(chains, name) for chains in kernel.chains.values() for name in ("FORWARD", "OUTPUT"))


@pytest.mark.parametrize(
    ("rule", "program", "text"),
    [
        (WEB, "ipset", "add nova-r4-7 0.0.0.0/1,tcp:80 -exist\nadd nova-r4-7 128.0.0.0/1,tcp:80 -exist\n"),
        (PING, "iptables-restore", "-A nova-compute-sg-7 -p icmp -m icmp --icmp-type 8 -j ACCEPT\n"),
    ],
)
def test_an_edited_group_is_one_command_however_many_are_in_it(kernel, firewall, rule, program, text):
    firewall.repair([a_member(number) for number in range(1, 51)], [])
    kernel.calls.clear()
    firewall.refresh_security_group_rules([a_member(number, rule) for number in range(1, 51)])
    assert kernel.fed == [program]
    assert text in kernel.calls[0][1]
    assert "inst-" not in kernel.calls[0][1]


@pytest.mark.parametrize(
    ("rule", "elements"),
    [
        (a_rule(from_port=80, to_port=81, cidr="10.0.0.8/30"), {"10.0.0.8/30,tcp:80", "10.0.0.8/30,tcp:81"}),
        (a_rule(protocol="udp", from_port=0, to_port=0, cidr="fd00::9/128"), {"fd00::9,udp:0"}),
        (a_rule(from_port=80, to_port=80, cidr="::/0"), {"::/1,tcp:80", "8000::/1,tcp:80"}),
        (a_rule(from_port=1, to_port=16, cidr="10.0.0.8/32"), {f"10.0.0.8,tcp:{port}" for port in range(1, 17)}),
        (a_rule(from_port=1, to_port=17, cidr="10.0.0.8/32"), set()),
        (a_rule(from_port=-1, to_port=-1, cidr="10.0.0.8/32"), set()),
        (PING, set()),
    ],
)
def test_an_ordinary_rule_is_elements_of_its_groups_set(kernel, firewall, rule, elements):
    spec = a_member(1, network=BOTH)
    firewall.prepare_instance_filter(spec)
    before = set().union(*kernel.sets.values())
    firewall.prepare_instance_filter(a_member(1, rule, network=BOTH))
    assert set().union(*kernel.sets.values()) - before == elements


def test_a_changed_membership_is_one_command_on_the_set(kernel, firewall):
    there = tuple(f"10.1.{n // 250}.{n % 250}" for n in range(1000))
    firewall.prepare_instance_filter(a_member(1, members=there, network=BOTH))
    kernel.calls.clear()
    members = [f"10.1.{n // 250}.{n % 250}" for n in range(1, 1000)]
    firewall.refresh_security_group_members(3, [*members, "10.2.0.1", "fd00::1"])
    lines = ["del nova-g4-3 10.1.0.0 -exist", "add nova-g4-3 10.2.0.1 -exist", "add nova-g6-3 fd00::1 -exist"]
    assert kernel.calls == [("ipset", "\n".join(lines) + "\n")]


def test_members_of_a_group_that_no_rule_follows_are_nobodys_business(kernel, firewall):
    firewall.refresh_security_group_members(99, ["10.0.0.9"])
    assert (kernel.calls, kernel.sets) == ([], {})


class Held:
    """An execute that waits until it is let go."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel, self.entered, self.go_on = kernel, threading.Event(), threading.Event()

    def __call__(self, *args: object, **kwargs: object) -> str:
        self.entered.set()
        assert self.go_on.wait(10)
        return self._kernel.execute(*args, **kwargs)


def test_a_burst_of_changes_is_one_command(kernel, firewall):
    firewall.prepare_instance_filter(a_member(1))
    kernel.calls.clear()
    firewall._host._execute = held = Held(kernel)
    threads = [_changing(firewall, "10.3.0.0")]
    assert held.entered.wait(10)
    threads += [_changing(firewall, f"10.3.0.{number}") for number in range(1, 20)]
    _until(lambda: len(firewall._turns._waiting) == 19)
    held.go_on.set()
    for thread in threads:
        thread.join(10)
    assert kernel.fed == ["ipset", "ipset"]


def _changing(firewall: IptablesFirewall, member: str) -> threading.Thread:
    thread = threading.Thread(target=firewall.refresh_security_group_members, args=(3, [member]))
    thread.start()
    return thread


def _until(true: object) -> None:
    for _ in range(1000):
        if true():
            return
        threading.Event().wait(0.01)
    raise TimeoutError


def test_what_only_a_removed_guest_used_goes_with_it(kernel, firewall):
    firewall.prepare_instance_filter(a_member(1))
    firewall.unfilter_instance(a_member(1))
    firewall.unfilter_instance(a_member(1))
    assert (kernel.sets, kernel.elements) == ({}, set())
    own = ("nova-compute-inst-", "nova-compute-net-", "nova-compute-sg-7", "nova-compute-tap")
    assert not [name for name in kernel.chains[4] if name.startswith(own)]


def test_a_guest_that_changes_interfaces_keeps_nothing_of_the_old(kernel, firewall):
    firewall.prepare_instance_filter(a_member(1))
    other = a_member(2)
    changed = a_guest(id=1, vifs=other.vifs, security_groups=other.security_groups)
    firewall.prepare_instance_filter(changed)
    assert firewall.audit([changed], []) == []


@pytest.mark.parametrize("program", ["ipset", "ip6tables-restore", "iptables-restore", "nft"])
def test_a_refused_guest_leaves_nothing(kernel, firewall, program):
    before = {family: dict(chains) for family, chains in kernel.chains.items()}
    kernel.failures = [(program, 1, "no memory")] * (4 if program == "ipset" else 2)  # it is undone, and tried again
    with pytest.raises(FirewallError, match="no memory"):
        firewall.prepare_instance_filter(a_member(1, network=BOTH))
    assert (kernel.chains, kernel.sets, kernel.elements) == (before, {}, set())


def test_what_others_took_away_is_seen_and_put_back(kernel, firewall):
    firewall.prepare_instance_filter(a_member(1))
    kernel.chains[4] = {"FORWARD": [], "OUTPUT": []}
    with pytest.raises(FirewallError):
        firewall.prepare_instance_filter(a_member(2))
    firewall.repair([a_member(1), a_member(2)], [])
    assert firewall.audit([a_member(1), a_member(2)], []) == []


def test_a_lock_that_is_held_for_a_moment_is_waited_for(kernel, firewall):
    kernel.failures = [("iptables-restore", 4, "Another app is currently holding the xtables lock.")] * 2
    firewall.prepare_instance_filter(a_member(1))
    assert firewall.instance_filter_exists(a_member(1))


def test_a_lock_that_is_not_let_go_is_told(kernel, firewall):
    kernel.failures = [("iptables-restore", 4, "Another app is currently holding the xtables lock.")] * 6
    with pytest.raises(FirewallError, match="iptables: another program has held its lock for 30 s"):
        firewall.prepare_instance_filter(a_member(1))
    assert not firewall.instance_filter_exists(a_member(1))


def test_too_many_members_are_refused_and_the_set_stays(kernel):
    firewall = a_firewall(kernel, max_members=3)
    firewall.prepare_instance_filter(a_member(1))
    with pytest.raises(FirewallError, match="nova-g4-3: 4 members, and a set holds 3"):
        firewall.refresh_security_group_members(3, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"])
    assert kernel.sets["nova-g4-3"] == {"10.0.0.9"}


def test_a_set_that_the_kernel_calls_full_is_as_it_was(kernel, firewall):
    firewall.prepare_instance_filter(a_member(1))
    kernel.max_members = 3
    with pytest.raises(FirewallError, match="Hash is full"):
        firewall.refresh_security_group_members(3, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"])
    assert kernel.sets["nova-g4-3"] == {"10.0.0.9"}


def test_a_host_without_a_program_is_refused_at_the_start(kernel):
    kernel.failures = [("ipset", 127, "No such file or directory: 'ipset'")]
    with pytest.raises(DriverConfigError, match="firewall_driver = iptables: ipset exited with 127"):
        a_firewall(kernel)


@pytest.mark.parametrize("value", ["0", None])
def test_a_host_that_hides_bridged_packets_is_refused_at_the_start(kernel, value):
    kernel.switches["bridge-nf-call-iptables"] = value
    with pytest.raises(DriverConfigError, match=r"bridged packets would go past: .*bridge-nf-call-iptables"):
        a_firewall(kernel)


def test_a_provider_rule_comes_before_every_group(kernel, firewall):
    firewall.refresh_provider_fw_rules([MAIL])
    assert kernel.chains[4]["nova-compute-provider"] == ["-p tcp -m tcp --dport 25 -j nova-compute-sg-fallback"]
    assert kernel.fed == ["iptables-restore"]


@pytest.fixture
def drifted(kernel: Kernel, firewall: IptablesFirewall) -> Iterator[InstanceSpec]:
    spec = a_member(1)
    firewall.prepare_instance_filter(spec)
    yield spec
    assert firewall.repair([spec], [])
    assert firewall.audit([spec], []) == []


def test_an_open_door_is_found_and_shut(kernel, firewall, drifted):
    kernel.chains[4]["nova-compute-inst-1"].insert(0, "-j nova-compute-admit")
    (drift,) = firewall.audit([drifted], [])
    assert (drift.guest, drift.opened) == (drifted.name, True)
    assert "it has 1 rules: [-j nova-compute-admit] too many" in str(drift)


def test_a_networks_chain_that_lets_in_more_is_found_and_mended(kernel, firewall, drifted):
    (name,) = (name for name in kernel.chains[4] if name.startswith("nova-compute-net-"))
    kernel.chains[4][name].append("-j ACCEPT")
    (drift,) = firewall.audit([drifted], [])
    assert str(drift) == f"chain {name} (IPv4): it has 1 rules: [-j ACCEPT] too many"
    assert drift.opened


def test_a_rule_that_is_none_is_found_in_its_groups_set_and_removed(kernel, firewall, drifted):
    kernel.sets["nova-r4-7"].add("10.0.0.0/8,tcp:23")
    (drift,) = firewall.audit([drifted], [])
    assert str(drift) == "set nova-r4-7: it has 1 members: [10.0.0.0/8,tcp:23] too many"
    assert drift.opened


def test_a_member_that_is_none_is_found_and_removed(kernel, firewall, drifted):
    kernel.sets["nova-g4-3"] = {"10.0.0.66"}
    (drift,) = firewall.audit([drifted], [])
    assert drift.opened
    assert str(drift) == "set nova-g4-3: it lacks 1 members: [10.0.0.9]; it has 1 members: [10.0.0.66] too many"


def test_a_jump_that_others_took_away_or_stand_before_is_found_and_put_first(kernel, firewall, drifted):
    kernel.chains[4]["FORWARD"] = []
    kernel.chains[6]["FORWARD"].insert(0, "-j ACCEPT")
    kernel.chains[6]["OUTPUT"].append("-j nova-filter-top")
    found = [str(drift) for drift in firewall.audit([drifted], [])]
    jumps = [("FORWARD (IPv4)", "filter-top"), ("FORWARD (IPv6)", "filter-top"), ("OUTPUT (IPv6)", "compute-local")]
    assert found == [f"{where}: it does not begin with -j nova-{jump}, once" for where, jump in jumps]


def test_a_lost_table_of_the_bridge_is_found_and_made(kernel, firewall, drifted):
    kernel.skeleton, kernel.elements = "", set()
    found = firewall.audit([drifted], [])
    assert next(str(drift) for drift in found) == "table bridge micronova: it is missing"
    assert found[0].opened


def test_a_guest_that_is_gone_is_found_and_removed(kernel, firewall):
    firewall.prepare_instance_filter(a_member(1))
    found = {str(drift) for drift in firewall.repair([], [])}
    assert "chain nova-compute-inst-1 (IPv4): it is left over" in found
    assert not any("inst-1" in name for name in kernel.chains[4])


def test_bridged_packets_that_stopped_coming_by_are_told(kernel, firewall):
    kernel.switches["bridge-nf-call-iptables"] = "0"
    (drift,) = firewall.audit([], [])
    assert "bridge-nf-call-iptables is 0, and must be 1: guests get no bridged packet" in str(drift)


def test_a_guest_without_ipv6_has_no_chain_of_it(kernel, firewall):
    before = dict(kernel.chains[6])
    firewall.prepare_instance_filter(a_member(1))
    assert kernel.chains[6] == before


def test_what_a_guests_chain_has_marked_never_leaves_it_undecided(kernel, firewall):
    spec = a_guest_with_everything()
    firewall.prepare_instance_filter(spec)
    firewall.prepare_instance_filter(replace(spec, id=2, vifs=(spec.vifs[0], a_vif(mac="02:16:3e:01:02:04"))))
    marking = [lines for chains in kernel.chains.values() for name, lines in chains.items() if _is_guests(name)]
    assert len(marking) == 8
    assert {lines[-1] for lines in marking} == {"-j DROP", "-g nova-compute-inst-2"}


def _is_guests(chain: str) -> bool:
    return chain.startswith(("nova-compute-inst-", "nova-compute-tap"))


def test_rules_of_others_are_not_touched(kernel, firewall):
    kernel.chains[4]["FORWARD"].append("-j DOCKER")
    kernel.chains[4]["DOCKER"] = ["-j ACCEPT"]
    firewall.repair([a_member(1)], [])
    assert kernel.chains[4]["FORWARD"] == ["-j nova-filter-top", "-j DOCKER"]
    assert kernel.chains[4]["DOCKER"] == ["-j ACCEPT"]
