"""Where packets are played: a host with one of the firewalls, guests of QEMU behind it, and everybody around them.

Packets come to guests by three paths: `bridged` from a wire in their bridge, `routed` from a wire that the host routes
to them from, and `host`, from the host itself. Frames are answered by nobody: each is one that a test sends.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import libvirt

from tests.builders import a_group, a_rule
from tests.firewall_model import ESTABLISHED, IN, OUT, Packet
from tests.integration.libvirt.bare_guests import (
    BRIDGE,
    BRIDGE_MAC,
    FAR,
    GATE,
    ROAD,
    THEIRS,
    WIRE,
    BareHost,
    a_bare_guest,
)
from tests.integration.libvirt.frames import BROADCAST, HostItself, Wire, frame
from tests.integration.processes import wait_until
from tests.integration.servers import LibvirtHost, running
from virt.spec import InstanceSpec, SecurityGroup

PATHS = ("bridged", "routed", "host")
ADMITTED = {"cidr": 70, "member": 7}
REFUSED = {"non-member": 8, "other project": 9}
SOURCES = ADMITTED | REFUSED
STRANGER = "stranger"
_numbers = itertools.count(1)
_ANY: dict[str, Any] = {"protocol": None, "from_port": -1, "to_port": -1}


def source_of(kind: str, family: int, path: str = "bridged") -> str:
    """The address of one of SOURCES, or of STRANGER, to whom nobody speaks: in the guests' network or beyond."""
    if kind == "other project":
        return "10.9.0.9" if family == 4 else "fd09::9"
    number, network = (SOURCES | {STRANGER: 11})[kind], 0 if path == "bridged" else 8
    return f"10.{network}.0.{number}" if family == 4 else f"fd0{network}::{number:x}"


_BEYOND = sorted({source_of(kind, family, "routed") for kind in (*SOURCES, STRANGER) for family in (4, 6)})
RULES = a_group(
    *(a_rule(cidr=cidr, **_ANY) for cidr in ("10.0.0.64/26", "10.8.0.64/26", "fd00::40/122", "fd08::40/122")),
    a_rule(group_id=9, **_ANY),
    a_rule(from_port=8000, to_port=8010, cidr="10.0.0.9/32"),
    a_rule(protocol="icmp", from_port=8, to_port=-1, cidr="10.0.0.9/32"),
    id=7,
    members={9: tuple(source_of("member", family, path) for family in (4, 6) for path in ("bridged", "routed"))},
)


FRIENDS = a_group(*(a_rule(protocol="udp", cidr=cidr) for cidr in ("10.0.0.64/26", "10.8.0.64/26")), id=8)


def a_machine(number: int, group: SecurityGroup = FRIENDS) -> InstanceSpec:
    """A guest that is let in what this group's rules admit."""
    return a_bare_guest(number, id=number, name=f"instance-{number:08x}", security_groups=(group,))


GUEST = a_machine(10, RULES)
(TAP,) = GUEST.vifs
OWN = {4: str(TAP.addresses[0].ip), 6: str(TAP.addresses_v6[0].ip)}


def a_packet(family: int = 4, source: str = "", **changes: Any) -> Packet:
    """A packet to GUEST; from somebody whom no rule admits, unless it says."""
    given = {"direction": IN, "protocol": "tcp", "dest": OWN[family], "mac": THEIRS, "dport": 80}
    given |= {"icmp_type": 8 if family == 4 else 128, "sport": 20000 + next(_numbers)}
    return Packet(**(given | {"source": source or source_of("non-member", family)} | changes))


def sent(family: int = 4, **changes: Any) -> Packet:
    """A packet that GUEST sends, to somebody whom no rule admits unless it says."""
    own = {"direction": OUT, "mac": TAP.mac, "source": OWN[family], "dest": source_of("non-member", family)}
    return a_packet(family, **(own | changes))


def answer(question: Packet) -> Packet:
    """What is said to what GUEST has sent."""
    back = {"direction": IN, "source": question.dest, "dest": question.source, "mac": THEIRS}
    ports = {"dport": question.sport, "icmp_type": 0 if question.family == 4 else 129}
    sport = question.sport if question.protocol == "icmp" else question.dport
    return replace(question, **(back | ports), sport=sport, state=ESTABLISHED)


class Stage:
    """One host, its firewall, GUEST and those around it."""

    def __init__(self, bare: BareHost, kind: str) -> None:
        self.bare, self.kind = bare, kind
        bare.route(*_BEYOND)
        self._gate_mac = bare.mac_of(GATE)
        self.firewall = bare.firewall(kind)
        self.start(GUEST, 0)
        self._card = bare.card(GUEST)
        self._outside = Wire(bare.host, WIRE, FAR), Wire(bare.host, ROAD, GATE), HostItself(bare.host)
        self._senders = dict(zip(PATHS, self._outside, strict=True))
        self._tap = Wire(bare.host, WIRE, TAP.dev)
        self._hears = {"bridged": self._outside[0], "routed": self._outside[1]}
        self._hears["host"] = Wire(bare.host, WIRE, BRIDGE, inward=True)

    def restart(self) -> None:
        """Have a daemon's firewall that has just started."""
        self.take(self.kind)

    def take(self, kind: str) -> None:
        """Have a daemon that has just started with a firewall of this kind."""
        self.kind, self.firewall = kind, self.bare.firewall(kind)

    def start(self, spec: InstanceSpec, flags: int = libvirt.VIR_DOMAIN_START_PAUSED) -> None:
        """Start a guest; paused, it takes no processor, and its tap is up all the same."""
        self.bare.know(spec)
        self.bare.start(spec, self.firewall, flags)

    def arrives(
        self, packet: Packet, path: str = "bridged", to_mac: str = "", build: Callable[..., bytes] = frame
    ) -> bool:
        """True when a packet gets to GUEST by this path."""
        mark, last = next(_numbers), next(_numbers)
        self._senders[path].send(build(packet, to_mac or self._way(path), mark), self._sure(path, last))
        return self._is_heard(self._tap, mark, last)

    def leaves(self, packet: Packet, path: str = "bridged", build: Callable[..., bytes] = frame) -> bool:
        """True when what GUEST sends gets to somebody at the other end of this path."""
        mark, last = next(_numbers), next(_numbers)
        to_mac = THEIRS if path == "bridged" else BRIDGE_MAC
        certain = sent(protocol="arp") if path != "routed" else sent(dest=source_of("cidr", 4, path), protocol="udp")
        last_mac = BROADCAST if path != "routed" else to_mac
        self._card.send(build(packet, to_mac, mark), frame(certain, last_mac, last))
        return self._is_heard(self._hears[path], mark, last)

    @contextlib.contextmanager
    def under_fire(self, *specs: InstanceSpec) -> Iterator[None]:
        """Send to guests what no rule admits, all the time; in the end nothing of it has come to any tap."""
        mark, taps = next(_numbers), Wire(self.bare.host, WIRE, "tap")
        aimed = itertools.product(self.seen_paths, specs)
        probes = [(self._senders[path], self._forbidden(spec, path, mark)) for path, spec in aimed]
        shooter = Shooter(probes)
        shooter.start()
        try:
            yield
            enough = shooter.rounds + 20
            wait_until(lambda: shooter.rounds > enough, 10, "twenty probes of each kind")
        finally:
            shooter.stop()
            taps.close()
        assert mark not in taps.marks

    @property
    def seen_paths(self) -> tuple[str, ...]:
        """Those that this firewall filters: of libvirt's rules, none sees what the host routes or sends."""
        return PATHS[:1] if self.kind == "nwfilter" else PATHS

    def admits_friends(self, spec: InstanceSpec) -> bool:
        """True when a guest gets what FRIENDS and RULES admit, by every path that its firewall filters."""
        (tap,), found = spec.vifs, []
        wire = Wire(self.bare.host, WIRE, tap.dev)
        for path in self.seen_paths:
            mark = next(_numbers)
            friend = a_packet(4, source_of("cidr", 4, path), dest=str(tap.addresses[0].ip), protocol="udp", dport=22)
            self._senders[path].send(frame(friend, self._way(path, tap.mac), mark))
            found.append(wire.has(mark))
        wire.close()
        return all(found)

    def close(self) -> None:
        """Speak and listen no more."""
        for one in (self._card, self._tap, *self._outside, self._hears["host"]):
            one.close()

    def _forbidden(self, spec: InstanceSpec, path: str, mark: int) -> bytes:
        (tap,) = spec.vifs
        stranger = a_packet(source=source_of("non-member", 4, path), dest=str(tap.addresses[0].ip), protocol="udp")
        return frame(stranger, self._way(path, tap.mac), mark)

    def _way(self, path: str, mac: str = TAP.mac) -> str:
        return {"bridged": mac, "routed": self._gate_mac, "host": mac}[path]

    def _sure(self, path: str, mark: int) -> bytes:
        """What gets to GUEST by this path for certain."""
        if path == "bridged":
            return frame(a_packet(protocol="arp"), BROADCAST, mark)
        return frame(a_packet(4, source_of("cidr", 4, path), protocol="udp"), self._way(path), mark)

    def _is_heard(self, wire: Wire, mark: int, last: int) -> bool:
        """Whether one was heard before the last was, which is sent after it by the same way."""
        assert wire.has(last), f"the packet that ends the case never came: {last}"
        return mark in wire.marks


class Shooter(threading.Thread):
    """Sends frames again and again. rounds: how often it has sent all of them."""

    def __init__(self, probes: Sequence[tuple[Wire | HostItself, bytes]]) -> None:
        super().__init__(daemon=True)
        self._probes, self._is_over, self.rounds = probes, threading.Event(), 0

    def run(self) -> None:
        while not self._is_over.wait(0.005):
            for sender, one in self._probes:
                sender.send(one)
            self.rounds += 1

    def stop(self) -> None:
        """Send no more."""
        self._is_over.set()
        self.join(10)


@contextlib.contextmanager
def a_stage(kind: str) -> Iterator[Stage]:
    """A stage for some tests; with its host everything on it ends."""
    with running(functools.partial(LibvirtHost, network=True)) as host:
        made = Stage(BareHost(host), kind)
        try:
            yield made
        finally:
            made.close()
