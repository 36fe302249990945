"""The text that iptables-restore, ipset and iptables-save speak: from and to data. Pure.

A change is what some chains (or sets) are before it, and what they are to be after it; None: not there. The text that
undoes it is that of the change from after to before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise

from virt.firewall import iptables_names as names

Chain = tuple[str, ...]
Chains = Mapping[str, Chain | None]
Sets = Mapping[str, frozenset[str] | None]

_MOST_RULES = 1 << 20
"""Elements of a set of rules; a project's quota ends long before."""


def restore(before: Chains, after: Chains) -> str:
    """What makes of the chains in `after` what it says, in one atomic change; empty when that is nothing.

    Chains that all guests share change line by line, the kernel's own only by our jump, any other as a whole.
    """
    whole = sorted(name for name, lines in after.items() if lines is not None and _is_whole(name, before))
    gone = sorted(name for name, lines in after.items() if lines is None and before.get(name) is not None)
    shared = sorted(name for name, lines in after.items() if lines is not None and _is_shared(name, before))
    text = [f":{name} - [0:0]" for name in whole]
    text += [f"-D {name} {line}" for name in shared for line in _missing(after[name], before[name])]
    text += [f"-A {name} {line}" for name in whole for line in after[name] or ()]
    text += [f"-A {name} {line}" for name in shared for line in _missing(before[name], after[name])]
    text += [line for name in names.BUILTIN if name in after for line in _hung(name, before.get(name), after[name])]
    text += [f"-F {name}" for name in gone] + [f"-X {name}" for name in gone]
    return "\n".join(["*filter", *text, "COMMIT", ""]) if text else ""


def parse(saved: str) -> dict[str, Chain]:
    """Our chains in what iptables-save printed, and the kernel's chains that ours hang from, whole."""
    found: dict[str, list[str]] = {}
    for line in saved.splitlines():
        if line.startswith(":"):
            name = line[1:].split(maxsplit=1)[0]
            if names.is_ours(name) or name in names.BUILTIN:
                found[name] = []
        elif line.startswith("-A "):
            _, name, rule = line.split(maxsplit=2)
            if name in found:
                found[name].append(rule)
    return {name: tuple(lines) for name, lines in found.items()}


def sets(before: Sets, after: Sets, maximum: int) -> str:
    """What makes of the sets in `after` what it says: first what is taken out of them, then what is put in.

    maximum: the members that a set has room for.
    """
    made = [name for name, members in after.items() if members is not None and before.get(name) is None]
    gone = [name for name, members in after.items() if members is None and before.get(name) is not None]
    text = [_create(name, maximum) for name in sorted(made)] + [f"flush {name}" for name in sorted(made)]
    kept = sorted(name for name, members in after.items() if members is not None)
    text += [f"del {name} {one} -exist" for name in kept for one in _less(before.get(name), after[name])]
    text += [f"add {name} {one} -exist" for name in kept for one in _less(after[name], before.get(name))]
    text += [f"destroy {name}" for name in sorted(gone)]
    return "\n".join([*text, ""]) if text else ""


def parse_sets(saved: str) -> dict[str, frozenset[str]]:
    """Our sets in what `ipset save` printed."""
    found: dict[str, set[str]] = {}
    for line in saved.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "create" and names.is_set(words[1]):
            found[words[1]] = set()
        elif len(words) > 2 and words[0] == "add" and words[1] in found:
            found[words[1]].add(words[2])
    return {name: frozenset(members) for name, members in found.items()}


@lru_cache(maxsize=1024)
def targets(lines: Chain) -> frozenset[str]:
    """The chains and sets that these rules refer to."""
    return frozenset[str]().union(*map(_targets, lines))


@lru_cache(maxsize=65536)
def _targets(line: str) -> frozenset[str]:
    words = line.split()
    found = (after for word, after in pairwise(words) if word in {"-j", "-g", "--match-set"})
    return frozenset(one for one in found if names.is_ours(one))


def _is_whole(name: str, before: Chains) -> bool:
    """True for a chain that is written anew; one that is shared only when it is not there yet."""
    return name not in names.BUILTIN and (name not in names.DISPATCHING or before.get(name) is None)


def _is_shared(name: str, before: Chains) -> bool:
    return name in names.DISPATCHING and before.get(name) is not None


def _hung(name: str, before: Chain | None, after: Chain | None) -> list[str]:
    """Our jump in one of the kernel's chains: once and first, or not at all; nothing else there is touched."""
    there = before or ()
    if after == there:
        return []
    ours = [line for line in after or () if line in names.OUR_JUMPS]
    gone = [f"-D {name} {line}" for line in there if line in names.OUR_JUMPS]
    return gone + [f"-I {name} 1 {line}" for line in ours[:1]]


def _create(name: str, maximum: int) -> str:
    family = "inet" if names.family_of(name) == 4 else "inet6"
    if names.is_rule_set(name):
        return f"create {name} hash:net,port family {family} hashsize 64 maxelem {_MOST_RULES} -exist"
    return f"create {name} hash:net family {family} hashsize 1024 maxelem {maximum} -exist"


@lru_cache(maxsize=256)  # a change and what undoes it ask the same
def _missing(there: Chain | None, wanted: Chain | None) -> Chain:
    """The lines of `wanted` that are not `there`, as often as they are wanted more."""
    left = Counter(there or ())
    found = []
    for line in wanted or ():
        if left[line]:
            left[line] -= 1
        else:
            found.append(line)
    return tuple(found)


def _less(some: frozenset[str] | None, others: frozenset[str] | None) -> list[str]:
    return sorted((some or frozenset()) - (others or frozenset()))
