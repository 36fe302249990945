"""Guests' packet filters: rules as data, and what they admit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any

from virt.fake.hypervisor import FakeHypervisor
from virt.firewall.base import Drift
from virt.spec import InstanceSpec


def render(spec: InstanceSpec) -> list[list[Any]]:
    """A guest's rules, as [protocol, from_port, to_port, cidr, group_id]."""
    return [
        [rule.protocol, rule.from_port, rule.to_port, rule.cidr, rule.group_id]
        for group in spec.security_groups
        for rule in group.rules
    ]


def ensure(host: FakeHypervisor, spec: InstanceSpec) -> None:
    """Have a guest's filters in place, whether the guest is here yet or not."""
    with host.lock:
        held = host.held(spec.name) or host.new_footprint(spec.name)
        held.filters = render(spec)
        host.save(held)
        _note_members(host, [spec])


def unfilter(host: FakeHypervisor, spec: InstanceSpec) -> None:
    """Remove the filters of a guest that is not here; those of one that is stay."""
    with host.lock:
        held = host.held(spec.name)
        if held is None or held.domain is not None:
            return
        held.filters = None
        if held.is_empty:
            host.erase(held)
        else:
            host.save(held)


def refresh_rules(host: FakeHypervisor, specs: Sequence[InstanceSpec]) -> None:
    """Make the filters of these guests match their rules; guests that are not here are passed over."""
    rendered = [(host.held(spec.name), render(spec)) for spec in specs]
    with host.lock:
        for held, rules in rendered:
            if held is not None and held.filters is not None:
                held.filters = rules
                host.save(held)
        _note_members(host, specs)


def audit(host: FakeHypervisor, specs: Sequence[InstanceSpec], rules: Sequence[Mapping[str, str]]) -> list[Drift]:
    """Where filters differ from what these guests need."""
    found = []
    for spec in specs:
        held = host.held(spec.name)
        if held is not None and held.domain is not None and held.filters != render(spec):
            problem = "is missing" if held.filters is None else "is not what the rules say"
            found.append(Drift(what="filter", problem=problem, guest=spec.name, opened=True))
    wanted = {
        key: tuple(known) for spec in specs for group in spec.security_groups for key, known in group.members.items()
    }
    wrong = [key for key, known in wanted.items() if set(host.group_members.get(key, ())) != set(known)]
    found += [Drift(what=f"members of group {key}", problem="are not who they are to be", opened=True) for key in wrong]
    if host.provider_rules != [dict(rule) for rule in rules]:
        found.append(Drift(what="provider's rules", problem="are not what they are to be", opened=True))
    return found


def repair(host: FakeHypervisor, specs: Sequence[InstanceSpec], rules: Sequence[Mapping[str, str]]) -> list[Drift]:
    """Make filters what these guests need; says what was amiss."""
    found = audit(host, specs, rules)
    if not found:
        return []
    for spec in specs:
        held = host.held(spec.name)
        if held is not None and held.domain is not None:
            ensure(host, spec)
    _note_members(host, specs)
    host.set_provider_rules([dict(rule) for rule in rules])
    return found


def admits(host: FakeHypervisor, name: str, protocol: str, port: int, source: str) -> bool:
    """True if a packet from `source` reaches a guest: no provider rule denies it and a rule of its own lets it in.

    A guest without filters admits everything, as a real tap would.
    """
    held = host.held(name)
    if held is None or held.filters is None:
        return True
    if any(_matches_provider(rule, protocol, port, source) for rule in host.provider_rules):
        return False
    return any(_matches(host, rule, protocol, port, source) for rule in held.filters)


def _note_members(host: FakeHypervisor, specs: Sequence[InstanceSpec]) -> None:
    members = {
        group_id: tuple(found)
        for spec in specs
        for group in spec.security_groups
        for group_id, found in group.members.items()
    }
    if members:
        host.set_group_members(members)


def _matches(host: FakeHypervisor, rule: Sequence[Any], protocol: str, port: int, source: str) -> bool:
    wanted, low, high, cidr, group_id = rule
    if wanted not in {None, protocol} or not _port_in(port, low, high):
        return False
    if group_id is not None:
        return source in host.group_members.get(group_id, ())
    return cidr is None or ip_address(source) in ip_network(cidr)


def _matches_provider(rule: dict[str, str], protocol: str, port: int, source: str) -> bool:
    in_range = _port_in(port, int(rule.get("from_port", -1)), int(rule.get("to_port", -1)))
    return rule.get("protocol") in {None, protocol} and in_range and ip_address(source) in ip_network(rule["cidr"])


def _port_in(port: int, low: int, high: int) -> bool:
    return low == -1 or low <= port <= high
