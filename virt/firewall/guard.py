"""Keeps a tap shut until its filters are known to be in place.

libvirt puts a new tap into its bridge first and filters it a moment later: what arrives in between waits in the tap for
the guest. So the names of guests' taps are guarded before there is a tap, in a bridge table of our own, and only a tap
that was opened passes anything. Opened is an interface, by its index, not a name: the next tap of that name is shut
again. The table outlives the daemon, and no other table is touched.

What is of no protocol that iptables sees, a frame with a VLAN tag above all, passes neither: libvirt's own rules
against it are not there for a moment now and then, while libvirt makes a guest's rules anew.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from virt.errors import FirewallError, ProcessError
from virt.execute import Execute, run

TABLE = "bridge micronova_guard"
_BEFORE_ALL_OTHERS = -310  # libvirt's and everybody's bridge chains are at -300 and later
_TIMEOUT_S = 30.0
_OUTWARD = (
    "oifname @guarded meta oif != @open counter drop",
    "oifname @guarded ether type != { ip, arp, ip6 } counter drop",
)
_INWARD = (
    "iifname @guarded meta iif != @open counter drop",
    "iifname @guarded ether type != { ip, arp, 0x8035, ip6 } counter drop",  # QEMU says where it is by RARP
)
_CHAINS = {"forward": (*_OUTWARD, *_INWARD), "output": _OUTWARD, "input": _INWARD}


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """What the guard holds: the names that are guarded, the taps that are open, and the indexes of open ones of old."""

    names: frozenset[str]
    open: frozenset[str]
    stale: frozenset[str]


class TapGuard:
    """The guard of one host. Raises FirewallError, in nft's own words."""

    def __init__(self, execute: Execute = run) -> None:
        self._execute = execute

    def ensure(self, taps: Iterable[str] = ()) -> None:
        """Have the table, and these taps guarded: shut, but for those that are there and open. One command."""
        script = [
            f"add table {TABLE}",
            f"add set {TABLE} guarded {{ type ifname; }}",
            f"add set {TABLE} open {{ type iface_index; }}",
        ]
        for hook, rules in _CHAINS.items():
            script += [
                f"add chain {TABLE} {hook} {{ type filter hook {hook} priority {_BEFORE_ALL_OTHERS}; }}",
                f"flush chain {TABLE} {hook}",
                *(f"add rule {TABLE} {hook} {rule}" for rule in rules),
            ]
        self._nft(*script, *_elements("add", "guarded", [f'"{tap}"' for tap in taps]))

    def open(self, taps: Collection[str]) -> None:
        """Let these taps pass what their filters let pass; FirewallError when there is no such interface."""
        self._nft(*_elements("add", "open", [f'"{tap}"' for tap in taps]))

    def shut(self, taps: Collection[str]) -> None:
        """Let nothing pass any more, of a tap by name or of one of old by index; succeed if they are shut."""
        self._nft(*_removed("open", taps))

    def forget(self, taps: Collection[str]) -> None:
        """Guard these names no more: their guests are gone. Succeed if they are not guarded."""
        self._nft(*_removed("guarded", [f'"{tap}"' for tap in taps]))

    def remove(self) -> None:
        """Guard nothing any more; succeed if there is no table."""
        self._nft(f"add table {TABLE}", f"delete table {TABLE}")

    def held(self) -> Guarded | None:
        """What is guarded and open now; None when there is no table, or it does not do what it is for."""
        listing = self._execute(["nft", "-j", "-n", "list", "ruleset", "bridge"], timeout_s=_TIMEOUT_S)
        ours = [
            (kind, entry)
            for item in json.loads(listing)["nftables"]
            for kind, entry in item.items()
            if entry.get("table") == TABLE.partition(" ")[2]
        ]
        hooks = {entry["chain"] for kind, entry in ours if kind == "rule"}
        sets = {entry["name"]: entry.get("elem", []) for kind, entry in ours if kind == "set"}
        if hooks != set(_CHAINS) or set(sets) != {"guarded", "open"}:
            return None
        found = frozenset(str(one) for one in sets["open"])
        stale = frozenset(one for one in found if one.isdecimal())
        return Guarded(names=frozenset(sets["guarded"]), open=found - stale, stale=stale)

    def _nft(self, *script: str) -> None:
        if not script:
            return
        try:
            self._execute(["nft", "; ".join(script)], timeout_s=_TIMEOUT_S)
        except ProcessError as exc:
            raise FirewallError(f"taps' guard: {exc}") from exc


def _removed(name: str, elements: Collection[str]) -> list[str]:
    """Commands that delete elements, which nft refuses for what is not there: so they are added first."""
    return [*_elements("add", name, elements), *_elements("delete", name, elements)]


def _elements(verb: str, name: str, elements: Collection[str]) -> list[str]:
    return [f"{verb} element {TABLE} {name} {{ {', '.join(elements)} }}"] if elements else []
