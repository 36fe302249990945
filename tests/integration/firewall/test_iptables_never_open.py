"""Packets that no rule admits, sent without pause while a firewall is restarted, edited, killed and disturbed.

MICRONOVA_PROBER_ROUNDS: how many rounds; each is one restart, five edits of groups and one kill -9 in the middle of
changes.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import threading
import time

import pytest

from tests import former_filters
from tests.builders import a_group, a_rule
from tests.firewall_model import IN, OUT, Packet
from tests.integration.firewall.iptables_places import CABLE, a_host, a_machine, number
from tests.integration.libvirt.frames import frame, marks

pytestmark = pytest.mark.real

ROUNDS = int(os.environ.get("MICRONOVA_PROBER_ROUNDS", "25"))
FRIEND, STRANGER = "10.9.0.70", "10.9.0.8"
NUMBERS = former_filters.GUESTS
_fork = multiprocessing.get_context("fork")


def machines(*ports, members=("10.9.0.6",)):
    """The host's guests, in a group that lets FRIEND in at these ports, and the members of another at port 53."""
    rules = [a_rule(from_port=port, to_port=port, cidr=f"{FRIEND}/32") for port in ports]
    names = a_rule(protocol="udp", from_port=53, to_port=53, group_id=9)
    return [a_machine(one, a_group(*rules, names, id=7, members={9: members})) for one in NUMBERS]


class Prober(threading.Thread):
    """Sends what no rule ever admits, and one packet among the others that the rules always do."""

    def __init__(self, host):
        super().__init__(daemon=True)
        self.host, self.forbidden, self.allowed, self.is_done = host, set(), set(), False
        self._ports = itertools.cycle(range(1024, 65000))

    def run(self):
        while not self.is_done:
            for one in NUMBERS:
                self._to(one)
            time.sleep(0.001)

    def _to(self, one):
        to, mac = f"10.9.0.{one}", f"02:16:3e:00:00:{one:02x}"
        for packet in (self._tcp(STRANGER, to, 22), self._udp(STRANGER, to, 53), self._tcp(FRIEND, to, 9)):
            self._send(self.host.cable, packet, mac, self.forbidden)
        lie = Packet(direction=OUT, protocol="udp", source="10.9.0.77", dest=FRIEND, mac=mac)
        self._send(self.host.wires[one], lie, CABLE, self.forbidden)
        self._send(self.host.cable, self._tcp(FRIEND, to, 22), mac, self.allowed)

    def _send(self, wire, packet, mac, kind):
        mark = number()
        kind.add(mark)
        wire.send(frame(packet, mac, mark))

    def _tcp(self, source, dest, port):
        return Packet(
            direction=IN, protocol="tcp", source=source, dest=dest, dport=port, sport=next(self._ports), mac=CABLE
        )

    def _udp(self, source, dest, port):
        return Packet(
            direction=IN, protocol="udp", source=source, dest=dest, dport=port, sport=next(self._ports), mac=CABLE
        )

    def stop(self):
        """What was heard of the forbidden and of the allowed."""
        self.is_done = True
        self.join(10)
        time.sleep(0.3)
        heard = marks(itertools.chain(self.host.cable.heard, *(wire.heard for wire in self.host.wires.values())))
        return heard & self.forbidden, heard & self.allowed


@pytest.fixture(scope="module", params=["nft", "legacy"])
def host(request):
    with a_host(request.param) as made:
        made.wires = {spec.id: made.start(spec) for spec in machines(22)}
        yield made


@pytest.fixture
def probed(host):
    """The host under fire; afterwards nothing forbidden has come through, and much of the rest has."""
    prober = Prober(host)
    prober.start()
    yield host
    forbidden, allowed = prober.stop()
    assert forbidden == set()
    assert len(prober.forbidden) > 1000
    assert len(allowed) > len(prober.allowed) / 10


def restart(host):
    host.firewall = host.start_firewall()


def edit(host):
    host.firewall.refresh_security_group_rules(machines(22, random.randint(80, 90)))


def change_members(host):
    host.firewall.refresh_security_group_members(9, [f"10.9.0.{random.randint(60, 69)}", "10.9.0.6"])


def test_nothing_comes_through_while_the_firewall_restarts_and_groups_are_edited(probed):
    for _ in range(ROUNDS):
        restart(probed)
        for _ in range(5):
            random.choice((edit, change_members))(probed)
    probed.firewall.repair(machines(22), [])
    assert probed.firewall.audit(machines(22), []) == []


def _meddle(host):
    """What is killed: a daemon that starts and changes without end."""
    os.setsid()
    restart(host)
    while True:
        random.choice((edit, change_members, _replug, _mend))(host)


def _replug(host):
    """A guest that is deleted and made again; not the one that has to be reached."""
    spec = machines(22)[-1]
    host.firewall.unfilter_instance(spec)
    host.firewall.prepare_instance_filter(spec)


def _mend(host):
    host.firewall.repair(machines(22), [{"protocol": "tcp", "from_port": "25", "to_port": "25", "cidr": "0.0.0.0/0"}])


def test_nothing_comes_through_when_what_changes_the_rules_is_killed(probed):
    for _ in range(ROUNDS):
        meddler = _fork.Process(target=_meddle, args=(probed,), daemon=True)
        meddler.start()
        time.sleep(random.uniform(0.05, 0.3))
        _kill_group(meddler)
    restart(probed)
    probed.firewall.repair(machines(22), [])
    assert probed.firewall.audit(machines(22), []) == []


def _kill_group(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # it has not got a group of its own yet
        process.kill()
    process.join(10)


def test_nothing_comes_through_while_the_chains_of_a_former_daemon_become_todays(probed):
    for layout in itertools.islice(itertools.cycle(former_filters.LAYOUTS), ROUNDS):
        for program, text in former_filters.restores(layout, "-D OUTPUT -j nova-compute-local").items():
            probed.execute([f"{program}-{probed.variant}-restore", "--noflush"], stdin=text)
        restart(probed)
        probed.firewall.repair(machines(22), [])
    assert probed.firewall.audit(machines(22), []) == []


def test_the_first_change_after_a_restart_leaves_every_guest_filtered(probed):
    restart(probed)
    probed.firewall.prepare_instance_filter(machines(22)[1])
    time.sleep(0.5)


def test_guest_1_goes_while_10_and_11_and_100_stay_filtered(probed):
    others = machines(22)[1:]
    probed.firewall.unfilter_instance(machines(22)[0])
    assert probed.firewall.audit(others, []) == []
    time.sleep(0.5)
    assert not [one for one in probed.firewall._host.read().chains[4] if one == "nova-compute-inst-1"]
