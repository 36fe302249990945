"""What the host's filters are to be, what they are, and where the two differ, in words: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from virt.firewall import iptables_guard as guard
from virt.firewall import iptables_names as names
from virt.firewall.base import Drift
from virt.firewall.iptables_guard import Facts
from virt.firewall.iptables_plan import Draft, Known
from virt.firewall.iptables_rules import Chain, Chains, both, provider_chain
from virt.firewall.rules import FAMILIES, InstanceRules, Match

_FAMILY = {4: "IPv4", 6: "IPv6"}
_LISTED = 3


@dataclass(slots=True, kw_only=True)
class Wanted:
    """Everything of ours that a host with these guests has. owners: the guest of a chain or a tap, by its name."""

    chains: dict[int, dict[str, Chain]]
    rules: list[object] | None
    sets: dict[str, frozenset[str]] = field(default_factory=dict)
    taps: dict[str, Facts] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)


def wanted(
    guests: Sequence[InstanceRules],
    denies: tuple[Match, ...],
    static: Mapping[int, Chains],
    rules: list[object] | None,
) -> Wanted:
    """What a host with all these guests is to have. static: the chains that hold for all; rules: the bridge's."""
    found = Wanted(chains={family: dict(static[family]) for family in FAMILIES}, rules=rules)
    for family in FAMILIES:
        found.chains[family] |= dict.fromkeys(names.DISPATCHING, ()) | {names.PROVIDER: provider_chain(denies, family)}
    for one in guests:
        for family, guest in both(one).items():
            chains = found.chains[family]
            chains |= {**guest.shared, **guest.chains}
            chains |= {name: (*chains[name], *lines) for name, lines in guest.lines.items()}
            found.sets |= guest.sets
            found.owners |= dict.fromkeys(guest.chains, one.name)
        found.taps |= {tap.dev: guard.facts(tap) for tap in one.taps}
        found.owners |= {tap.dev: one.name for tap in one.taps}
    return found


def has_guest(known: Known, rules: InstanceRules) -> bool:
    """True when every filter of one guest is in place, as its rules say."""
    for family, guest in both(rules).items():
        chains = known.chains[family]
        if any(chains.get(name) != lines for name, lines in (*guest.chains.items(), *guest.shared.items())):
            return False
        if any(not set(lines) <= set(chains.get(name, ())) for name, lines in guest.lines.items()):
            return False
        if any(known.sets.get(name) != members for name, members in guest.sets.items()):
            return False
    return all(known.taps.get(tap.dev) == guard.facts(tap) for tap in rules.taps)


def compare(known: Known, wanted: Wanted) -> list[Drift]:
    """Where a host differs from what it is to be."""
    found = [] if known.rules == wanted.rules else [_of_bridge(known)]
    for family in FAMILIES:
        found += _of_chains(family, known, wanted)
    found += _of_sets(known, wanted)
    for dev in sorted(set(known.taps) | set(wanted.taps)):
        found += _of_tap(dev, known.taps.get(dev, frozenset()), wanted)
    return found


def put(draft: Draft, known: Known, wanted: Wanted) -> None:
    """Draft what makes of a host what it is to be. Chains that are right already are not touched."""
    for family in FAMILIES:
        for name in names.BUILTIN:
            draft.hang(family, name)
        for name in (set(known.chains[family]) | set(wanted.chains[family])) - set(names.BUILTIN):
            draft.put_chain(family, name, wanted.chains[family].get(name))
    for name in set(known.sets) | set(wanted.sets):
        draft.put_members(name, wanted.sets.get(name))
    draft.put_taps(
        {
            dev: wanted.taps.get(dev)
            for dev in set(known.taps) | set(wanted.taps)
            if known.taps.get(dev) != wanted.taps.get(dev)
        }
    )


def _of_bridge(known: Known) -> Drift:
    problem = "it is missing" if known.rules is None else "its rules are not what they were"
    return Drift(what=f"table bridge {guard.TABLE}", problem=problem, opened=True)


def _of_chains(family: int, known: Known, wanted: Wanted) -> Iterator[Drift]:
    there, right = known.chains[family], wanted.chains[family]
    for name in names.BUILTIN:
        jump, lines = names.JUMPS[name], there.get(name, ())
        if lines[:1] != (jump,) or sum(line in names.OUR_JUMPS for line in lines) != 1:
            yield Drift(what=f"{name} ({_FAMILY[family]})", problem=f"it does not begin with {jump}, once")
    for name in sorted((set(there) | set(right)) - set(names.BUILTIN)):
        if (problem := _difference(name, there.get(name), right.get(name))) is not None:
            words, opened = problem
            owner = wanted.owners.get(name)
            yield Drift(what=f"chain {name} ({_FAMILY[family]})", problem=words, guest=owner, opened=opened)


def _difference(name: str, there: Chain | None, right: Chain | None) -> tuple[str, bool] | None:
    if there == right or (name in names.DISPATCHING and there is not None and sorted(there) == sorted(right or ())):
        return None
    if right is None:
        return "it is left over", False
    if there is None:
        return "it is missing", False
    lacking, extra = _but(right, there), _but(there, right)
    if not lacking and not extra:
        return "its rules are in another order", True
    return _both("rules", lacking, extra), bool(extra) or name == names.PROVIDER


def _of_sets(known: Known, wanted: Wanted) -> Iterator[Drift]:
    for name in sorted(set(known.sets) | set(wanted.sets)):
        there, right = known.sets.get(name), wanted.sets.get(name)
        if there == right:
            continue
        if there is None or right is None:
            yield Drift(what=f"set {name}", problem="it is missing" if there is None else "it is left over")
            continue
        lacking, extra = sorted(right - there), sorted(there - right)
        yield Drift(what=f"set {name}", problem=_both("members", lacking, extra), opened=bool(extra))


def _of_tap(dev: str, there: Facts, wanted: Wanted) -> Iterator[Drift]:
    right = wanted.taps.get(dev, frozenset())
    if there == right:
        return
    what, owner = f"tap {dev} on the bridge", wanted.owners.get(dev)
    if not right:
        yield Drift(what=what, problem="it is left over", guest=owner)
        return
    lacking, extra = ([" ".join(one) for one in sorted(some)] for some in (right - there, there - right))
    yield Drift(what=what, problem=_both("facts", lacking, extra), guest=owner, opened=bool(extra))


def _both(things: str, lacking: Sequence[str], extra: Sequence[str]) -> str:
    words = [f"it lacks {_some(things, lacking)}"] if lacking else []
    return "; ".join([*words, *([f"it has {_some(things, extra)} too many"] if extra else [])])


def _some(things: str, lines: Sequence[str]) -> str:
    listed = ", ".join(f"[{line}]" for line in lines[:_LISTED])
    return f"{len(lines)} {things}: {listed}{' ...' if len(lines) > _LISTED else ''}"


def _but(some: Chain, others: Chain) -> list[str]:
    left = list(others)
    found = []
    for line in some:
        if line in left:
            left.remove(line)
        else:
            found.append(line)
    return found
