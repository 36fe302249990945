"""A kernel with iptables, ipset and nft in memory: it executes what the iptables firewall would have a host execute.

A restore is all or nothing, as the real one; ipset's is line by line, as the real one. nft's rules are kept as text,
its elements as sets.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from copy import deepcopy

from virt.errors import ProcessError

FAMILY = {"iptables": 4, "ip6tables": 6}
_ELEMENT = re.compile(r'(add|delete) element bridge micronova (\S+) \{ "([^"]+)"(?: \. (\S+))? \}')


class Kernel:
    """chains: by family and name, as lists of rules. sets: by name. elements: (set, tap, key) of the bridge's table."""

    def __init__(self, max_members: int = 65536) -> None:
        self.chains: dict[int, dict[str, list[str]]] = {family: {"FORWARD": [], "OUTPUT": []} for family in (4, 6)}
        self.sets: dict[str, set[str]] = {}
        self.elements: set[tuple[str, str, str]] = set()
        self.skeleton = ""
        self.calls: list[tuple[str, str]] = []
        self.failures: list[tuple[str, int, str]] = []
        self.switches = {"bridge-nf-call-iptables": "1", "bridge-nf-call-ip6tables": "1"}
        self.max_members = max_members

    @property
    def fed(self) -> list[str]:
        """The programs that were given something to do, in order."""
        return [program for program, text in self.calls if text]

    def execute(self, cmd: Sequence[str], *, timeout_s: float, stdin: str | None = None) -> str:
        """Stands in for virt.execute.run."""
        assert timeout_s > 0
        program = cmd[0].replace("-nft", "").replace("-legacy", "")
        self.calls.append((program, stdin or ""))
        for failure in self.failures:
            if failure[0] == program:
                self.failures.remove(failure)
                raise ProcessError(list(cmd), failure[1], failure[2])
        if program == "cat":
            return self._switch(cmd)
        if stdin is not None:
            return self._fed(program, list(cmd), stdin)
        return self._printed(program, list(cmd))

    def _switch(self, cmd: Sequence[str]) -> str:
        value = self.switches.get(cmd[1].rpartition("/")[2])
        if value is None:
            raise ProcessError(list(cmd), 1, "No such file or directory")
        return f"{value}\n"

    def _fed(self, program: str, cmd: list[str], text: str) -> str:
        try:
            if program == "ipset":
                for line in text.splitlines():
                    self._set_line(line.split())
            elif program == "nft":
                self._nft(text)
            else:
                self._restore(FAMILY[program.removesuffix("-restore")], text)
        except (KeyError, ValueError, AssertionError) as exc:
            raise ProcessError(cmd, 1, f"{type(exc).__name__}: {exc}") from exc
        return ""

    def _restore(self, family: int, text: str) -> None:
        chains = deepcopy(self.chains[family])
        lines = text.splitlines()
        assert (lines[0], lines[-1]) == ("*filter", "COMMIT"), lines
        for line in lines[1:-1]:
            _apply(chains, line)
        for rules in chains.values():
            for rule in rules:
                self._demand(chains, rule.split())
        self.chains[family] = chains

    def _demand(self, chains: dict[str, list[str]], words: list[str]) -> None:
        for flag, name in itertools.pairwise(words):
            assert flag not in {"-j", "-g"} or name in {*chains, "ACCEPT", "DROP", "MARK"}, f"no chain {name}"
            assert flag != "--match-set" or name in self.sets, f"no set {name}"

    def _set_line(self, words: list[str]) -> None:
        verb, name = words[:2]
        if verb == "create":
            self.sets.setdefault(name, set())
        elif verb == "flush":
            self.sets[name].clear()
        elif verb == "add":
            assert len(self.sets[name] | {words[2]}) <= self.max_members, "Hash is full"
            self.sets[name].add(words[2])
        elif verb == "del":
            self.sets[name].discard(words[2])
        else:
            rules = [rule for chains in self.chains.values() for some in chains.values() for rule in some]
            assert not any(f"--match-set {name} " in rule for rule in rules), f"{name} is in use"
            del self.sets[name]

    def _nft(self, text: str) -> None:
        if not _ELEMENT.match(text):
            self.skeleton = text
            return
        elements = set(self.elements)
        for line in text.splitlines():
            verb, name, dev, key = _ELEMENT.fullmatch(line).groups("")  # type: ignore[union-attr]
            (elements.add if verb == "add" else elements.remove)((name, dev, key))
        self.elements = elements

    def _printed(self, program: str, cmd: list[str]) -> str:
        if cmd[-1] == "--version":
            return "a version"
        if program == "ipset":
            return "".join(
                f"create {name} hash:net family inet\n" + "".join(f"add {name} {one}\n" for one in members)
                for name, members in self.sets.items()
            )
        if program == "nft":
            return self._listed(cmd)
        chains = self.chains[FAMILY[program.removesuffix("-save")]]
        heads = "".join(f":{name} - [0:0]\n" for name in chains)
        return heads + "".join(f"-A {name} {rule}\n" for name, rules in chains.items() for rule in rules)

    def _listed(self, cmd: list[str]) -> str:
        if not self.skeleton:
            raise ProcessError(cmd, 1, "Error: No such file or directory")
        sets: dict[str, list[object]] = {}
        for name, dev, key in sorted(self.elements):
            sets.setdefault(name, []).append({"concat": [dev, _printed_key(key)]} if key else dev)
        found: list[object] = [{"rule": {"text": self.skeleton, "handle": len(self.calls)}}]
        found += [{"set": {"name": name, "elem": elements}} for name, elements in sets.items()]
        return json.dumps({"nftables": found})


def _apply(chains: dict[str, list[str]], line: str) -> None:
    if line.startswith(":"):
        chains[line[1:].split(maxsplit=1)[0]] = []
        return
    verb, name, *rest = line.split(maxsplit=2)
    rule = rest[0] if rest else ""
    if verb == "-A":
        chains[name].append(rule)
    elif verb == "-I":
        place, rule = rule.split(maxsplit=1)
        chains[name].insert(int(place) - 1, rule)
    elif verb == "-D":
        chains[name].remove(rule)
    elif verb == "-F":
        chains[name].clear()
    else:
        assert verb == "-X", line
        assert not chains.pop(name), f"{name} is not empty"


def _printed_key(key: str) -> object:
    address, _, length = key.partition("/")
    return {"prefix": {"addr": address, "len": int(length)}} if length else key
