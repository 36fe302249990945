"""libvirt's filters in memory, with taps that are filtered, and the guard of taps: for tests of what is done when."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from lxml import etree

from virt.errors import GuestNotFoundError, GuestStateError, HypervisorError
from virt.firewall.guard import Guarded


class FakeFilters:
    """A FilterStore. `taps`: by name, the filter of a running guest's tap. `done`: every change, in order."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.taps: dict[str, str] = {}
        self.done: list[tuple[str, str]] = []
        self.refuse = ""

    def define(self, xml: str) -> None:
        root = etree.fromstring(xml.encode())
        missing = [ref.get("filter") for ref in root.findall("filterref") if ref.get("filter") not in self.kept]
        if missing or root.get("name") == self.refuse:
            raise HypervisorError(f"referenced filter {missing} is missing")
        self.kept[root.get("name")] = xml
        self.done.append(("define", root.get("name")))

    def undefine(self, name: str) -> None:
        if name in self.needed():
            raise GuestStateError("nwfilter is in use")
        if self.kept.pop(name, None) is not None:
            self.done.append(("undefine", name))

    def xml(self, name: str) -> str | None:
        return self.kept.get(name)

    def names(self) -> frozenset[str]:
        return frozenset(self.kept)

    def bindings(self) -> dict[str, str]:
        return dict(self.taps)

    def bound(self, dev: str) -> str | None:
        return self.taps.get(dev)

    def bind(self, guest: str, dev: str, name: str) -> None:
        if dev not in self.taps:
            raise GuestNotFoundError(f"guest {guest}: has no interface {dev}")
        self.taps[dev] = name

    def needed(self) -> set[str]:
        """The filters of running guests, and what they refer to."""
        found, left = set(), [name for name in self.taps.values() if name in self.kept]
        while left:
            name = left.pop()
            found.add(name)
            refs = etree.fromstring(self.kept[name].encode()).findall("filterref")
            left += [ref.get("filter") for ref in refs if ref.get("filter") not in found]
        return found


class FakeGuard:
    """A TapGuard that only keeps count."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.opened: set[str] = set()

    def ensure(self, taps: Iterable[str] = ()) -> None:
        self.names |= set(taps)

    def open(self, taps: Collection[str]) -> None:
        self.opened |= set(taps)

    def shut(self, taps: Collection[str]) -> None:
        self.opened -= set(taps)

    def forget(self, taps: Collection[str]) -> None:
        self.names -= set(taps)

    def held(self) -> Guarded:
        return Guarded(names=frozenset(self.names), open=frozenset(self.opened & self.names), stale=frozenset())


class FakeKernel:
    """Answers the commands that look at the kernel: taps that are filtered, as many rules as asked for.

    half: taps whose rules of the bridge libvirt has left half made.
    """

    def __init__(self) -> None:
        self.taps: dict[str, tuple[int, int]] = {}
        self.half: set[str] = set()
        self.sees_bridges = "1"
        self.texts: list[str] = []

    def execute(self, cmd: list[str], **options: Any) -> str:
        self.texts.append(" ".join(cmd))
        if cmd[0] == "cat":
            return self.sees_bridges + "\n"
        if cmd[0] == "ip":
            return "[" + ",".join(f'{{"ifname": "{dev}"}}' for dev in self.taps) + "]"
        if cmd[0] == "ebtables-save":
            whole = "".join(f"-A PREROUTING -i {dev} -j libvirt-I-{dev}\n" for dev in self.taps)
            return whole + "".join(f"-A POSTROUTING -o {dev} -j libvirt-P-{dev}\n" for dev in self.half)
        return self._saved(cmd[0] == "ip6tables-save") if cmd[0].endswith("-save") else ""

    def _saved(self, is_v6: bool) -> str:
        text = ":libvirt-out - [0:0]\n"
        for dev, counts in self.taps.items():
            text += f"-A libvirt-out -m physdev --physdev-out {dev} --physdev-is-bridged -g FO-{dev}\n"
            text += f"-A FO-{dev} -j ACCEPT\n" * (counts[is_v6] - 1) + f"-A FO-{dev} -j DROP\n"
        return text
