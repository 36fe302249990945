"""What the host has, what is to change, and the commands that change it: pure.

Every step of a plan leaves a host that admits nothing which neither the rules before nor those after it admit: facts
about taps shrink first and grow last, sets are filled before a rule names them, those of rules lose what they are to
lose after the chains have changed, and a family's rules change at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from virt.firewall import iptables_guard as guard
from virt.firewall import iptables_names as names
from virt.firewall import iptables_text as text
from virt.firewall.iptables_guard import Facts
from virt.firewall.iptables_rules import NO_GUEST, Chain, Guest, both
from virt.firewall.rules import FAMILIES, InstanceRules

NFT, IPSET = "nft", "ipset"
RESTORE = {4: "iptables", 6: "ip6tables"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One command: the tool, what it reads, and what undoes it. Only ipset can leave one half done."""

    tool: str
    text: str
    undo: str


@dataclass(slots=True, kw_only=True)
class Known:
    """What the host has of ours. rules: those of the bridge's table, as nft lists them; None: there is no table."""

    chains: dict[int, dict[str, Chain]] = field(default_factory=lambda: {family: {} for family in FAMILIES})
    sets: dict[str, frozenset[str]] = field(default_factory=dict)
    taps: dict[str, Facts] = field(default_factory=dict)
    rules: list[Any] | None = None
    _users: dict[int, dict[str, set[str]]] = field(default_factory=lambda: {family: {} for family in FAMILIES})

    def __post_init__(self) -> None:
        for family, chains in self.chains.items():
            for name, lines in chains.items():
                self._index(family, name, lines)

    def users(self, family: int, target: str) -> set[str]:
        """The chains that refer to a chain or a set."""
        return self._users[family].get(target, set())

    def learn(self, draft: Draft) -> None:
        """A draft has become what the host has."""
        for family in FAMILIES:
            for name, lines in draft.chains[family].items():
                self._forget(family, name)
                if lines is not None:
                    self.chains[family][name] = lines
                    self._index(family, name, lines)
        _learn(self.sets, draft.sets)
        _learn(self.taps, draft.taps)

    def _index(self, family: int, name: str, lines: Chain) -> None:
        for target in text.targets(lines):
            self._users[family].setdefault(target, set()).add(name)

    def _forget(self, family: int, name: str) -> None:
        for target in text.targets(self.chains[family].pop(name, ())):
            self._users[family][target].discard(name)


class Draft:
    """Changes on top of what a host has, none of them made yet. What it does not name stays as it is."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self.chains: dict[int, dict[str, Chain | None]] = {family: {} for family in FAMILIES}
        self.sets: dict[str, frozenset[str] | None] = {}
        self.taps: dict[str, Facts | None] = {}

    def chain(self, family: int, name: str) -> Chain | None:
        """A chain as it will be."""
        changed = self.chains[family]
        return changed[name] if name in changed else self.known.chains[family].get(name)

    def members(self, name: str) -> frozenset[str] | None:
        """A set as it will be."""
        return self.sets[name] if name in self.sets else self.known.sets.get(name)

    def put_chain(self, family: int, name: str, lines: Chain | None, *, anew: bool = False) -> None:
        """Have a chain, or none; `anew`: write it even if it is known to be so already."""
        if anew or self.chain(family, name) != lines:
            self.chains[family][name] = lines

    def hang(self, family: int, name: str) -> None:
        """Have our jump in one of the kernel's chains, first and once."""
        there = self.chain(family, name) or ()
        others = (line for line in there if line not in names.OUR_JUMPS)
        self.put_chain(family, name, (names.JUMPS[name], *others))

    def put_members(self, name: str, members: frozenset[str] | None) -> None:
        """Have a set, or none."""
        if self.members(name) != members:
            self.sets[name] = members

    def put_taps(self, taps: Mapping[str, Facts | None]) -> None:
        """Have the bridge know this of these taps."""
        self.taps |= taps

    def put_guest(self, rules: InstanceRules, *, anew: bool = False) -> None:
        """Have everything of one guest, and nothing of it that `rules` does not ask for."""
        held = set(self.guest_devices(rules.id))
        for family, guest in both(rules).items():
            for name, members in guest.sets.items():
                self.put_members(name, members)
            self._put_guest(family, rules.id, guest, anew)
        wanted = {tap.dev: guard.facts(tap) for tap in rules.taps}
        self.put_taps({**dict.fromkeys(held - set(wanted)), **wanted})

    def drop_guest(self, instance_id: int) -> None:
        """Have nothing of one guest, and nothing that only it used."""
        self.put_taps(dict.fromkeys(self.guest_devices(instance_id)))
        for family in FAMILIES:
            self._put_guest(family, instance_id, NO_GUEST, anew=False)

    def guest_devices(self, instance_id: int) -> list[str]:
        """The taps of one guest."""
        own = self._own_chains(4, instance_id)
        lines = (line for name in self._dispatching(4, own) for line in self.chain(4, name) or ())
        return [names.tap_in(line) for line in lines if _leads_to(line, own) and names.is_by_device(line)]

    def _own_chains(self, family: int, instance_id: int) -> set[str]:
        """A guest's own chain, and those of its taps where it has several."""
        instance = names.instance_chain(instance_id)
        return {instance, *self._users(family, instance)} - names.DISPATCHING

    def _dispatching(self, family: int, own: Iterable[str]) -> set[str]:
        """The shared chains that have lines of a guest with these chains."""
        return {user for chain in own for user in self._users(family, chain)} & names.DISPATCHING

    def _put_guest(self, family: int, instance_id: int, guest: Guest, anew: bool) -> None:
        own_before = self._own_chains(family, instance_id)
        targets = (text.targets(self.chain(family, own) or ()) for own in own_before)
        shared_before = {one for some in targets for one in some if names.is_shared_chain(one)}
        self._put_lines(family, own_before, guest)
        for name, chain in guest.shared.items():
            self._put_shared(family, name, chain)
        for name, chain in guest.chains.items():
            self.put_chain(family, name, chain, anew=anew)
        for name in own_before - set(guest.chains):
            self.put_chain(family, name, None)
        for name in shared_before - set(guest.shared):
            if not self._is_used(family, name):
                self._put_shared(family, name, None)

    def _put_lines(self, family: int, own_before: set[str], guest: Guest) -> None:
        """The guest's lines in the chains that all share, in the place of those it had there."""
        own = own_before | set(guest.chains)
        for name in self._dispatching(family, own) | set(guest.lines):
            there, wanted = self.chain(family, name) or (), guest.lines.get(name, ())
            mine = [line for line in there if _leads_to(line, own)]
            if sorted(mine) != sorted(wanted):
                self.put_chain(family, name, (*(line for line in there if line not in mine), *wanted))

    def _put_shared(self, family: int, name: str, lines: Chain | None) -> None:
        followed = text.targets(self.chain(family, name) or ())
        self.put_chain(family, name, lines)
        for target in followed:
            if names.is_set(target) and not self._is_used(family, target):
                self.put_members(target, None)

    def _users(self, family: int, target: str) -> set[str]:
        return set(self._each_user(family, target))

    def _is_used(self, family: int, target: str) -> bool:
        return any(True for _ in self._each_user(family, target))

    def _each_user(self, family: int, target: str) -> Iterator[str]:
        changed = self.chains[family]
        yield from (name for name in self.known.users(family, target) if name not in changed)
        yield from (name for name, lines in changed.items() if lines and target in text.targets(lines))

    def steps(self, maximum: int) -> list[Step]:
        """The commands that make the changes, in order. `maximum`: members that a new set has room for."""
        taps = {dev: self.known.taps.get(dev) for dev in self.taps}
        fewer = guard.narrowed(taps, self.taps)
        sets = {name: self.known.sets.get(name) for name in self.sets}
        wide = {name: _wide(name, sets[name], members) for name, members in self.sets.items()}
        found = [
            Step(tool=NFT, text=guard.change(taps, fewer), undo=guard.change(fewer, taps)),
            Step(tool=IPSET, text=text.sets(sets, wide, maximum), undo=text.sets(wide, sets, maximum)),
            *(self._restored(family) for family in reversed(FAMILIES)),
            Step(tool=NFT, text=guard.change(fewer, self.taps), undo=guard.change(self.taps, fewer)),
            Step(tool=IPSET, text=text.sets(wide, self.sets, maximum), undo=text.sets(self.sets, wide, maximum)),
        ]
        return _joined([step for step in found if step.text])

    def _restored(self, family: int) -> Step:
        after = self.chains[family]
        before = {name: self.known.chains[family].get(name) for name in after}
        return Step(tool=RESTORE[family], text=text.restore(before, after), undo=text.restore(after, before))


def _wide(name: str, before: frozenset[str] | None, after: frozenset[str] | None) -> frozenset[str] | None:
    """What a set has while a family's rules change.

    Of rules, those before and those after, so that nothing is cut off that both let in: a rule may take the place of a
    wider one, or go from the set to the chain. Of members, which do not overlap and may be many, those after.
    """
    if after is None or names.is_member_set(name):
        return before if after is None else after
    return after | (before or frozenset())


def _joined(steps: list[Step]) -> list[Step]:
    """Steps with those of one tool that follow each other as one."""
    found: list[Step] = []
    for step in steps:
        if found and found[-1].tool == step.tool:
            last = found.pop()
            found.append(Step(tool=step.tool, text=last.text + step.text, undo=step.undo + last.undo))
        else:
            found.append(step)
    return found


def _leads_to(line: str, chains: set[str]) -> bool:
    return line.rpartition(" ")[2] in chains


def _learn(known: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        if value is None:
            known.pop(name, None)
        else:
            known[name] = value
