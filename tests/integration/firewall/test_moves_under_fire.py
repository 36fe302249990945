"""A real guest moves between two hosts, is suspended, resumed and rebooted, and is shot at all the time.

What no rule admits is sent into its bridge on both hosts, to its address, without a pause: none of it may come to any
tap, and what a rule admits must.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from db import security_groups
from db.models import fixed_ips
from tests.functional.harness import ADMIN
from tests.integration.conftest import GuestImage
from tests.integration.libvirt.frames import Wire, frame
from tests.integration.libvirt.stages import Shooter, a_packet
from tests.integration.processes import wait_until
from tests.integration.two_hosts import Pair, a_pair

pytestmark = pytest.mark.real

BRIDGE, GUN, PORT = "br1", "gun0", "gun1"  # the bridge is net1's
FRIENDS, FRIEND, STRANGER = "10.1.0.64/26", "10.1.0.70", "10.1.0.9"
_marks = itertools.count(1)


class Battle:
    """The guest, its hosts, and a wire into its bridge on each."""

    def __init__(self, pair: Pair, instance_id: int) -> None:
        self.pair, self.instance_id = pair, instance_id
        held = sa.select(fixed_ips.c.address, fixed_ips.c.mac_address).where(fixed_ips.c.instance_id == instance_id)
        with pair.db.read() as tx:
            self.address, self.mac = tx.execute(held).one()
        self.wires = {name: Wire(host, GUN, "tap") for name, host in pair.hosts.items()}

    @contextlib.contextmanager
    def fire(self) -> Iterator[None]:
        """Shoot at the guest on both hosts; in the end nothing of it has come to any tap."""
        mark = next(_marks)
        shooter = Shooter([(wire, self._shot(STRANGER, mark)) for wire in self.wires.values()])
        shooter.start()
        try:
            yield
        finally:
            shooter.stop()
        assert shooter.rounds > 100
        assert [name for name, wire in self.wires.items() if mark in wire.marks] == []

    def reaches(self, host: str) -> bool:
        """Whether a packet that a rule admits gets to the guest on this host."""
        mark = next(_marks)
        self.wires[host].send(self._shot(FRIEND, mark))
        return self.wires[host].has(mark, 0.5)

    def close(self) -> None:
        """Speak and listen no more."""
        for wire in self.wires.values():
            wire.close()

    def _shot(self, source: str, mark: int) -> bytes:
        return frame(a_packet(4, source, dest=self.address, protocol="udp", dport=53), self.mac, mark)


@pytest.fixture(scope="module", params=["nwfilter", "iptables"])
def pair(request: pytest.FixtureRequest, guest_image: GuestImage) -> Iterator[Pair]:
    """Two hosts with this firewall, each with net1's bridge and a port of it that tests send into."""
    with a_pair(guest_image, firewall_driver=request.param) as made:
        for host in made.hosts.values():
            host.run("ip", "link", "add", BRIDGE, "address", "02:00:00:00:00:01", "type", "bridge")
            host.run("ip", "link", "add", GUN, "type", "veth", "peer", "name", PORT)
            host.run("ip", "link", "set", PORT, "master", BRIDGE)
            for link in (GUN, PORT, BRIDGE):
                host.run("ip", "link", "set", link, "up")
        yield made.start("alpha", "beta")


@pytest.fixture(scope="module")
def battle(pair: Pair) -> Iterator[Battle]:
    """A guest on alpha that may be asked for names by FRIENDS."""
    group = pair.db.run(security_groups.ensure_default, ADMIN.user_id, ADMIN.project_id)
    names = {"protocol": "udp", "from_port": 53, "to_port": 53}
    pair.db.run(security_groups.add_rule, group.id, cidr=FRIENDS, **names)
    instance_id = pair.boot(image="little", instance_type="nano", host="alpha", network="net1")
    made = Battle(pair, instance_id)
    yield made
    made.close()
    pair.done(pair.api.delete(ADMIN, instance_id), 120)
    assert [pair.leftovers(host, f"instance-{instance_id:08x}") for host in pair.hosts] == [[], []]


def test_a_guest_that_moves_gets_what_its_rules_admit_and_nothing_else(battle: Battle) -> None:
    api = battle.pair.api
    with battle.fire():
        for dest in ("beta", "alpha"):
            battle.pair.done(api.live_migration(ADMIN, battle.instance_id, dest), 120)
            wait_until(lambda dest=dest: battle.reaches(dest), 10, f"what a rule admits, on {dest}")  # type: ignore[misc]


def test_a_guest_that_is_suspended_and_rebooted_gets_what_its_rules_admit_and_nothing_else(battle: Battle) -> None:
    api = battle.pair.api
    with battle.fire():
        for order in (api.suspend, api.resume, api.reboot):
            battle.pair.done(order(ADMIN, battle.instance_id), 120)
        wait_until(lambda: battle.reaches("alpha"), 10, "what a rule admits, after a reboot")
