"""libvirt's filters while everything around them happens: not one packet gets through that no rule admits."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.builders import a_group, a_rule
from tests.firewall_model import IN, OUT, Packet
from tests.integration.libvirt.bare_guests import FAR, WIRE, BareHost, a_bare_guest
from tests.integration.libvirt.frames import BROADCAST, Wire, frame, marks
from tests.integration.processes import wait_until
from tests.integration.servers import LibvirtHost, running

pytestmark = pytest.mark.real

ROUNDS = int(os.environ.get("MICRONOVA_PROBES", "3"))
FRIEND, STRANGER = "10.0.0.70", "10.0.0.8"
_marks = itertools.count(1000)


@pytest.fixture(scope="module")
def bare():
    """A host with a bridge and a wire."""
    with running(functools.partial(LibvirtHost, network=True)) as host:
        yield BareHost(host)


@pytest.fixture
def wire(bare):
    """The wire to the guests."""
    made = Wire(bare.host, WIRE, "tap")
    yield made
    made.close()


def in_group(*ports, number=10, members=()):
    """A guest that lets FRIEND and members in on these ports."""
    rules = [a_rule(from_port=port, to_port=port, cidr=f"{FRIEND}/32") for port in ports]
    group = a_group(*rules, a_rule(from_port=99, to_port=99, group_id=9), id=7, members={9: members})
    return a_bare_guest(number, name=f"instance-{number}", id=number, security_groups=(group,))


def question(source, port, number=10, **changes):
    given = {"direction": IN, "protocol": "tcp", "dest": f"10.0.0.{number}", "mac": "02:00:00:00:00:99"}
    return Packet(**(given | {"source": source, "dport": port, "sport": 20000 + next(_marks) % 40000} | changes))


def tagged(plain):
    """A frame in a VLAN, which iptables does not see into."""
    return plain[:12] + b"\x81\x00\x00\x05" + plain[12:]


class Prober:
    """Sends what no rule admits, all the time, to a guest and to everybody."""

    def __init__(self, wire, spec):
        self._wire, self._mac, self._is_over = wire, spec.vifs[0].mac, threading.Event()
        self.mark, self.sent = next(_marks), 0
        self._thread = threading.Thread(target=self._probe)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        wait_until(lambda: self.sent > 100, 10, "a hundred probes")
        self._is_over.set()
        self._thread.join()

    def _probe(self):
        frames = [
            frame(question(STRANGER, 22, protocol=protocol), mac, self.mark)
            for protocol, mac in itertools.product(("tcp", "udp", "icmp", "253"), (self._mac, BROADCAST))
        ]
        frames += [tagged(frames[0]), tagged(frames[1])]
        while not self._is_over.wait(0.003):
            self._wire.send(*frames)
            self.sent += len(frames)

    def assert_nothing_came_through(self):
        """None of the probes has left by a tap."""
        assert self.mark not in marks(self._wire.heard)


class Liar:
    """A guest that says all the time, by its card, that it is another; and what leaves the host."""

    def __init__(self, bare, spec, card):
        self._card, self._far, self._is_over = card, Wire(bare.host, WIRE, FAR), threading.Event()
        self.mark, self.sent, self._spec = next(_marks), 0, spec
        self._thread = threading.Thread(target=self._lie)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        wait_until(lambda: self.sent > 100, 10, "a hundred lies")
        self._is_over.set()
        self._thread.join()
        self._far.close()

    def _lie(self):
        own = {"mac": self._spec.vifs[0].mac, "source": "10.0.0.10"}
        lies = (
            {"source": FRIEND},
            {"mac": "02:00:00:00:00:77"},
            {"protocol": "arp", "source": FRIEND},
            {"source": "fd00::7"},
        )
        frames = [self._frame(**(own | lie)) for lie in lies]
        while not self._is_over.wait(0.01):
            self._card.send(*frames)
            self.sent += len(frames)

    def _frame(self, **lie):
        dest = "fd00::8" if ":" in lie["source"] else STRANGER
        return frame(
            Packet(direction=OUT, **({"protocol": "udp", "dest": dest, "dport": 9} | lie)), BROADCAST, self.mark
        )

    def assert_nothing_was_believed(self):
        """None of the lies has left the host."""
        assert self.mark not in marks(self._far.heard)


def admitted(wire, spec, source, port):
    """True if a packet gets to the guest now."""
    mark, last = next(_marks), next(_marks)
    probe = frame(question(source, port), spec.vifs[0].mac, mark)
    wire.send(probe, frame(question(source, 0, protocol="arp"), BROADCAST, last))
    assert wire.has(last)
    return mark in marks(wire.heard)


def test_a_starting_guest_gets_nothing_before_its_filters_are_there(bare, wire):
    spec, firewall = in_group(80), bare.firewall()
    with Prober(wire, spec) as prober:
        for _ in range(2):
            bare.start(spec, firewall)
            wait_until(lambda: admitted(wire, spec, FRIEND, 80), 2, "the friend's packet")
            bare.stop(spec)
    bare.firewall().unfilter_instance(spec)
    prober.assert_nothing_came_through()


@pytest.fixture(scope="module")
def spec(bare):
    """A guest that runs on through all that happens, and lets FRIEND in on port 80."""
    made = in_group(80)
    bare.start(made, bare.firewall())
    return made


@pytest.fixture(scope="module")
def card(bare, spec):
    """That guest's end of its network card."""
    made = bare.card(spec)
    yield made
    made.close()


def test_daemons_that_restart_leave_every_guest_filtered(bare, wire, spec):
    with Prober(wire, spec) as prober:
        for _ in range(5 * ROUNDS):
            bare.firewall().repair([spec], [])
            assert admitted(wire, spec, FRIEND, 80)
    prober.assert_nothing_came_through()


def test_edits_of_groups_open_nothing_else(bare, wire, spec):
    firewall = bare.firewall()
    firewall.repair([spec], [])
    with Prober(wire, spec) as prober:
        for port in range(100, 100 + ROUNDS):
            firewall.refresh_security_group_rules([in_group(80, port)])
            firewall.refresh_security_group_members(9, [f"10.9.9.{port % 250}"])
            assert admitted(wire, spec, FRIEND, port)
            assert admitted(wire, spec, f"10.9.9.{port % 250}", 99)
            assert not admitted(wire, spec, f"10.9.9.{(port - 1) % 250}", 99)
    prober.assert_nothing_came_through()


EDITOR = """
import sys
from tests.integration.libvirt import test_nwfilter_never_open as tests
from virt.firewall.nwfilter import NWFilterFirewall
from virt.firewall.guard import TapGuard
from virt.libvirt.host import Host
from virt.libvirt.nwfilters import NWFilters
print("starts", flush=True)
firewall = NWFilterFirewall(NWFilters(Host(sys.argv[1])), TapGuard())
firewall.init_host()
firewall.repair([tests.in_group(80)], [])
for port in range(1000, 60000):
    firewall.refresh_security_group_rules([tests.in_group(80, port)])
    firewall.prepare_instance_filter(tests.in_group(80, port))
"""


def kill_a_daemon(bare):
    """Start one that edits a group without end, and kill it before it is ready, or later."""
    command = bare.host.inside(sys.executable, "-c", EDITOR, "qemu:///system")
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as editor:
        try:
            assert editor.stdout.readline() == b"starts\n"
            time.sleep(random.uniform(0.1, 3))  # no fact to wait for: the moment is to be any
        finally:
            os.killpg(editor.pid, signal.SIGKILL)


def test_daemons_killed_at_any_moment_leave_every_guest_filtered(bare, wire, spec, card):
    with Prober(wire, spec) as prober, Liar(bare, spec, card) as liar:
        for _ in range(ROUNDS):
            kill_a_daemon(bare)
        firewall = bare.firewall()
        firewall.repair([spec], [])
        assert firewall.audit([spec], []) == []
        assert admitted(wire, spec, FRIEND, 80)
    prober.assert_nothing_came_through()
    liar.assert_nothing_was_believed()


def test_libvirt_that_restarts_leaves_every_guest_filtered(bare, wire, spec):
    with Prober(wire, spec) as prober:
        bare.host.restart_libvirtd()
        bare.reconnect()
        wait_until(lambda: bare.firewall().audit([spec], []) == [], 5, "filters are as they are to be")
        assert admitted(wire, spec, FRIEND, 80)
    prober.assert_nothing_came_through()


def test_removing_one_guest_leaves_those_whose_names_begin_alike_filtered(bare, wire, spec):
    others = [in_group(80, number=number) for number in (1, 11, 100)]
    firewall = bare.firewall()
    firewall.repair([spec, *others], [])
    with Prober(wire, spec) as prober:
        firewall.unfilter_instance(others[0])
        assert [firewall.instance_filter_exists(one) for one in (*others, spec)] == [False, True, True, True]
        assert admitted(wire, spec, FRIEND, 80)
    prober.assert_nothing_came_through()
    firewall.repair([spec], [])


@pytest.mark.parametrize(
    "command", ["iptables -F", "ip6tables -F libvirt-out", "ebtables -t nat -F", "nft flush ruleset"]
)
def test_what_others_break_is_told_and_mended(bare, wire, spec, command):
    firewall = bare.firewall()
    bare.execute(command.split())
    found = firewall.repair([spec], [])
    assert (spec.name, True) in [(one.guest, one.opened) for one in found]
    with Prober(wire, spec) as prober:
        assert firewall.audit([spec], []) == []
        assert admitted(wire, spec, FRIEND, 80)
    prober.assert_nothing_came_through()


def test_a_vlan_tag_hides_nothing_while_libvirts_bridge_rules_are_not_there(bare, wire, spec):
    bare.firewall().repair([spec], [])
    bare.execute(["ebtables", "-t", "nat", "-F"])
    with Prober(wire, spec) as prober:
        assert admitted(wire, spec, FRIEND, 80)
    prober.assert_nothing_came_through()


def test_what_libvirt_left_half_made_opens_nothing_at_the_next_change(bare, wire, spec, card):
    firewall, dev = bare.firewall(), spec.vifs[0].dev
    firewall.repair([spec], [])
    for whole, half in ("IJ", "OP"):
        bare.execute(["ebtables", "-t", "nat", "-E", f"libvirt-{whole}-{dev}", f"libvirt-{half}-{dev}"])
    with Prober(wire, spec) as prober, Liar(bare, spec, card) as liar:
        firewall.refresh_security_group_rules([in_group(80, 81)])
        assert admitted(wire, spec, FRIEND, 81)
    prober.assert_nothing_came_through()
    liar.assert_nothing_was_believed()


def test_a_guest_that_ran_without_filters_gets_them(bare, wire):
    spec, firewall = in_group(80, number=20), bare.firewall()
    bare.connection.createXML(bare.document(spec, None), 0)
    found = firewall.repair([spec], [])
    assert any("filters it by nothing" in one.problem and one.opened for one in found)
    assert not [one for one in firewall.audit([spec], []) if one.guest]
    bare.stop(spec, firewall)


def test_a_guest_with_no_filters_is_not_opened(bare):
    spec, firewall = in_group(80, number=21), bare.firewall()
    firewall.prepare_instance_filter(spec)
    bare.connection.createXML(bare.document(spec, None), 0)
    firewall.apply_instance_filter(dataclasses.replace(spec))
    assert bare.filters.bound(spec.vifs[0].dev) == firewall.filter_name(spec, spec.vifs[0])
    bare.stop(spec, firewall)
