"""What the written rules admit, read by an interpreter that knows nothing of how they are written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import former_filters
from tests.builders import a_group, a_guest, a_network, a_rule, a_vif
from tests.firewall_model import ESTABLISHED, INVALID, NEW, RELATED, Packet, admits
from tests.integration.firewall.iptables_places import a_machine
from tests.iptables_interpreter import Path, Table
from tests.iptables_kernel import Kernel
from virt.errors import ProcessError
from virt.firewall.iptables import IptablesFirewall
from virt.firewall.iptables_host import FilterHost
from virt.firewall.rules import InstanceRules, TapRules, instance_rules, provider_denies
from virt.spec import InstanceSpec, Rule

ADDRESSES = {
    4: ["10.0.0.1", "10.0.0.9", "10.0.0.10", "10.7.0.1", "192.0.2.9"],
    6: ["fe80::1", "fd00::9", "fd00::a", "2001:db8::1"],
}
CIDRS = {
    4: ["0.0.0.0/0", "10.0.0.0/8", "10.0.0.8/30", "192.0.2.9/32"],
    6: ["::/0", "fd00::/64", "fd00::8/126", "2001:db8::1/128"],
}
PORTS = [0, 1, 22, 25, 67, 68, 80, 546, 547, 65535]
MEMBERS = {3: ("10.0.0.9", "fd00::9"), 4: ("10.0.0.10", "10.7.0.1"), 5: ()}


def a_source(draw: Callable[..., object]) -> dict[str, object]:
    if draw(st.booleans()):
        return {"group_id": draw(st.sampled_from(sorted(MEMBERS)))}
    return {"cidr": draw(st.sampled_from(CIDRS[4] + CIDRS[6]))}


@st.composite
def rules(draw: Callable[..., object]) -> Rule:
    protocol = draw(st.sampled_from(["tcp", "udp", "icmp", None]))
    low, high = -1, -1
    if protocol == "icmp":
        low, high = draw(
            st.sampled_from([(-1, -1), (8, -1), (8, 0), (3, 4), (128, 0), (134, -1), (135, -1), (255, -1)])
        )
    elif protocol:
        low, high = sorted((draw(st.sampled_from(PORTS)), draw(st.sampled_from(PORTS))))
    return a_rule(protocol=protocol, from_port=low, to_port=high, **a_source(draw))


@st.composite
def guests(draw: Callable[..., object]) -> InstanceSpec:
    """A guest with one or two interfaces and some groups."""
    networks = [a_network(cidr_v6="fd00::/64"), a_network(id=2, bridge="br101", cidr="10.7.0.0/24", gateway=None)]
    vifs = [
        a_vif(
            mac=f"{first}:16:3e:00:00:0{n}", network=network, addresses=(IPv4Interface(f"10.{7 * n}.0.20/24"),),
            addresses_v6=(IPv6Interface("fd00::14/64"),) if network.cidr_v6 else (),
        )
        for n, (network, first) in enumerate(zip(networks, ("02", "06"), strict=True))
    ]  # fmt: skip
    groups = [
        a_group(*draw(st.lists(rules(), max_size=4)), id=number, members=MEMBERS)
        for number in draw(st.lists(st.integers(1, 3), unique=True, max_size=3))
    ]
    count = draw(st.integers(1, 2))
    return a_guest(id=1, name="instance-1", vifs=tuple(vifs[:count]), security_groups=tuple(groups))


def packets(tap: TapRules) -> list[Packet]:
    """Every kind of packet that a rule could tell from another, to one tap."""
    dests = {4: tap.addresses, 6: tap.addresses_v6}
    talks = [("tcp", 40000, port) for port in PORTS] + [("udp", 40000, port) for port in PORTS]
    talks += [("udp", 67, 68), ("udp", 547, 546), ("132", 0, 0), ("47", 0, 0)]
    pings = [(8, 0), (8, 1), (3, 4), (128, 0), (134, 0), (135, 0), (136, 0)]
    found = []
    for family, sources in ADDRESSES.items():
        for source in sources if dests[family] else ():
            to = {"direction": "in", "source": source, "dest": str(dests[family][0])}
            found += [Packet(protocol=name, sport=low, dport=port, **to) for name, low, port in talks]
            found += [Packet(protocol="icmp", icmp_type=kind, icmp_code=code, **to) for kind, code in pings]
            found += [
                Packet(protocol="tcp", dport=9, state=state, **to) for state in (ESTABLISHED, RELATED, INVALID, NEW)
            ]
    return found


def verdicts(kernel: Kernel, tap: TapRules, *, bridged: bool) -> list[bool]:
    """What the kernel's rules do with those packets."""
    path = Path(dev=tap.dev, bridge=tap.bridge, bridged=bridged)
    tables = {family: Table(kernel.chains[family], kernel.sets) for family in (4, 6)}
    return [tables[packet.family].admits(packet, path) for packet in packets(tap)]


def started(kernel: Kernel, **changes: object) -> IptablesFirewall:
    firewall = IptablesFirewall(FilterHost(kernel.execute), mark=1 << 25, max_members=65536, **changes)
    firewall.init_host()
    return firewall


def told(rules: InstanceRules, tap: TapRules, denies: tuple[object, ...] = ()) -> list[bool]:
    return [admits(rules, tap, packet, denies) for packet in packets(tap)]


def as_provider_rule(rule: Rule) -> dict[str, str]:
    """A rule as the provider's table has it."""
    ports = {"from_port": str(rule.from_port), "to_port": str(rule.to_port)}
    return {"protocol": rule.protocol or "any", "cidr": rule.cidr or "", **ports}


@settings(max_examples=40, deadline=None)
@given(guests(), st.lists(rules().filter(lambda rule: rule.cidr is not None), max_size=2), st.booleans())
def test_random_groups_admit_exactly_what_the_model_admits(spec, denied, allow):
    kernel = Kernel()
    firewall = started(kernel, allow_project_net_traffic=allow)
    deny = [as_provider_rule(rule) for rule in denied]
    firewall.prepare_instance_filter(spec)
    firewall.refresh_provider_fw_rules(deny)
    assert firewall.audit([spec], deny) == []
    known = instance_rules(spec, allow_project_net_traffic=allow)
    for tap in known.taps:
        expected = told(known, tap, provider_denies(deny))
        assert verdicts(kernel, tap, bridged=True) == expected
        assert verdicts(kernel, tap, bridged=False) == expected


@settings(max_examples=20, deadline=None)
@given(guests())
def test_a_chain_whose_end_somebody_took_out_admits_no_more_than_before(spec):
    kernel = Kernel()
    started(kernel).prepare_instance_filter(spec)
    for chains in kernel.chains.values():
        assert chains.get("nova-compute-inst-1", [""]).pop() in {"-j DROP", ""}
    _is_within(kernel, spec, spec)


@settings(max_examples=20, deadline=None)
@given(guests(), guests(), st.integers(0, 20))
def test_a_change_cut_off_anywhere_admits_nothing_that_neither_side_admits(before, after, cut):
    kernel = Kernel()
    started(kernel).prepare_instance_filter(before)
    firewall = started(kernel)
    execute = _dying(kernel, cut)
    firewall._host._execute = execute
    with contextlib.suppress(_KilledError, ProcessError):
        firewall.prepare_instance_filter(after)
    _is_within(kernel, before, after)
    started(kernel).repair([after], [])
    tap = instance_rules(after).taps[0]
    assert verdicts(kernel, tap, bridged=True) == told(instance_rules(after), tap)


@settings(max_examples=20, deadline=None)
@given(guests(), guests(), st.integers(0, 20))
def test_an_edit_cut_off_anywhere_cuts_off_nothing_that_both_sides_let_in(before, other, cut):
    kernel, after = Kernel(), replace(before, security_groups=other.security_groups)
    started(kernel).prepare_instance_filter(before)
    firewall = started(kernel)
    firewall._host._execute = _dying(kernel, cut)
    with contextlib.suppress(_KilledError):
        firewall.refresh_security_group_rules([after])
    _is_within(kernel, before, after)
    for tap in instance_rules(after).taps:
        sides = zip(told(instance_rules(before), tap), told(instance_rules(after), tap), strict=True)
        seen = verdicts(kernel, tap, bridged=True)
        assert all(got for got, (was, will_be) in zip(seen, sides, strict=True) if was and will_be)


class _KilledError(BaseException):
    """kill -9, as far as a program can tell."""


def _dying(kernel: Kernel, steps: int) -> Callable[..., str]:
    """Executes so many programs, and of ipset so many lines: the one that can end half done."""
    left = [steps]

    def execute(cmd: list[str], *, timeout_s: float, stdin: str | None = None) -> str:
        for words in stdin.splitlines(keepends=True) if stdin and cmd[0] == "ipset" else [stdin]:
            if not left[0]:
                raise _KilledError
            left[0] -= 1
            found = kernel.execute(cmd, timeout_s=timeout_s, stdin=words)
        return found

    return execute


def _is_within(kernel: Kernel, before: InstanceSpec, after: InstanceSpec) -> None:
    old, new = instance_rules(before), instance_rules(after)
    for tap in new.taps:
        was = told(old, tap) if tap.dev in {one.dev for one in old.taps} else [False] * len(packets(tap))
        allowed = [a or b for a, b in zip(was, told(new, tap), strict=True)]
        for bridged in (True, False):
            seen = verdicts(kernel, tap, bridged=bridged)
            assert [got for got, may in zip(seen, allowed, strict=True) if got and not may] == []


@pytest.mark.parametrize("layout", former_filters.LAYOUTS)
def test_former_chains_admit_the_same_at_every_step_on_which_they_become_todays(layout):
    kernel, guests = _former(layout)
    expected, seen = [_let_in(kernel, guests)], []
    firewall = IptablesFirewall(FilterHost(_watched(kernel, guests, seen)), mark=1 << 25, max_members=65536)
    firewall.init_host()
    firewall.repair(guests, [])
    assert seen == expected * 7  # nft, ip6tables, iptables at the start; nft, ipset and they again for the guests
    assert firewall.audit(guests, []) == []
    assert not any("tap2163e" in name for name in kernel.chains[4])


def _former(layout: str) -> tuple[Kernel, list[InstanceSpec]]:
    """A host as a former daemon left it, and its guests."""
    kernel = Kernel()
    kernel.sets = {"nova-g4-9": {"10.9.0.6"}, "nova-g6-9": set()}
    for program, text in former_filters.restores(layout, "-I FORWARD 1 -j nova-filter-top").items():
        kernel.execute([f"{program}-restore"], timeout_s=1, stdin=text)
    rules = [a_rule(cidr="10.9.0.70/32"), a_rule(protocol="udp", from_port=53, to_port=53, group_id=9)]
    group = a_group(*rules, id=7, members={9: ["10.9.0.6"]})
    return kernel, [a_machine(one, group) for one in former_filters.GUESTS]


def _watched(kernel: Kernel, guests: list[InstanceSpec], seen: list[object]) -> Callable[..., str]:
    """Executes, and notes what is let in after each command that changes something."""

    def execute(cmd: list[str], *, timeout_s: float, stdin: str | None = None) -> str:
        found = kernel.execute(cmd, timeout_s=timeout_s, stdin=stdin)
        if stdin is not None:
            seen.append(_let_in(kernel, guests))
        return found

    return execute


def _let_in(kernel: Kernel, guests: list[InstanceSpec]) -> list[list[bool]]:
    taps = [tap for spec in guests for tap in instance_rules(spec).taps]
    return [verdicts(kernel, tap, bridged=bridged) for tap in taps for bridged in (True, False)]


def test_a_tap_that_nobody_prepared_gets_nothing():
    kernel = Kernel()
    started(kernel)
    (tap,) = instance_rules(a_guest(vifs=(a_vif(),))).taps
    assert not any(verdicts(kernel, tap, bridged=True))


@pytest.mark.parametrize("bridged", [True, False])
def test_a_guest_without_groups_gets_its_address_and_nothing_more(bridged):
    kernel = Kernel()
    spec = a_guest(vifs=(a_vif(),))
    started(kernel).prepare_instance_filter(spec)
    (tap,) = instance_rules(spec).taps
    let_in = [packet for packet, got in zip(packets(tap), verdicts(kernel, tap, bridged=bridged), strict=True) if got]
    assert {(one.source, one.sport, one.dport) for one in let_in if one.state == NEW} == {("10.0.0.1", 67, 68)}
