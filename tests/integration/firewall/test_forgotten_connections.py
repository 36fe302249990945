"""Who was connected to a guest is not connected to the next guest of its address."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import pytest

from tests.builders import a_group, a_guest, a_rule
from tests.firewall_model import ESTABLISHED, IN, OUT, Packet
from tests.integration.firewall.iptables_places import CABLE, a_host, a_machine, crosses, question
from tests.integration.processes import require_program
from virt.firewall.conntrack import Connections
from virt.firewall.latest import LatestFirewall

pytestmark = pytest.mark.real

PEERS = {4: "10.9.0.70", 6: "fd09::46"}
FLOWS = list(itertools.product(("the peer", "the guest"), ("udp", "tcp"), PEERS))
RULES = a_group(
    *(a_rule(protocol=None, from_port=-1, to_port=-1, cidr=one) for one in ("10.9.0.70/32", "fd09::46/128"))
)
NUMBERS = {"one": 5, "two": 6, "neighbour": 7}


class Host:
    """A host with the iptables firewall as a daemon has it, a neighbouring guest, and a peer on the cable."""

    def __init__(self, inner):
        self.inner = inner
        self.firewall = LatestFirewall(inner.firewall, Connections(inner.execute))
        self.firewall.init_host()

    def start(self, spec):
        """A guest behind its filters."""
        self.firewall.prepare_instance_filter(spec)
        self.inner.plug(spec)

    def end(self, spec):
        """A guest that is deleted: its tap goes first."""
        (vif,) = spec.vifs
        self.inner.taps.pop(vif.dev).close()
        self.inner.execute(["ip", "link", "del", vif.dev])
        self.firewall.unfilter_instance(spec)

    def tap(self, spec):
        """The guest's wire."""
        return self.inner.taps[spec.vifs[0].dev]

    def sends(self, spec, packet):
        """True when what the guest sends gets to the peer."""
        (vif,), tap = spec.vifs, self.tap(spec)
        probe = question(tap, vif.mac, str(vif.addresses[0].ip))
        return crosses(tap, self.inner.cable, replace(packet, mac=vif.mac), CABLE, probe)

    def gets(self, spec, packet):
        """True when what the peer sends gets to the guest."""
        probe = question(self.inner.cable, CABLE, PEERS[4])
        return crosses(self.inner.cable, self.tap(spec), replace(packet, mac=CABLE), spec.vifs[0].mac, probe)

    def establish(self, spec):
        """Connections of both families and directions; the packets that the peer goes on with."""
        return [self._established(spec, *flow, 30000 + port) for port, flow in enumerate(FLOWS)]

    def _established(self, spec, opener, protocol, family, port):
        own = str((spec.vifs[0].addresses if family == 4 else spec.vifs[0].addresses_v6)[0].ip)
        ends = {"protocol": protocol, "sport": port, "dport": port}
        there = Packet(direction=IN, source=PEERS[family], dest=own, **ends)
        back = Packet(direction=OUT, source=own, dest=PEERS[family], **ends)
        if opener == "the peer":
            assert self.gets(spec, there)
            assert self.sends(spec, replace(back, state=ESTABLISHED))
            return there
        assert self.sends(spec, back)
        return replace(there, state=ESTABLISHED)


@pytest.fixture(scope="module")
def host():
    require_program("conntrack")
    with a_host("nft") as inner:
        yield Host(inner)


def heir(spec):
    """Another guest, with the addresses of this one and no rules."""
    (vif,) = a_machine(NUMBERS["two"]).vifs
    vif = replace(vif, addresses=spec.vifs[0].addresses, addresses_v6=spec.vifs[0].addresses_v6)
    groups = (a_group(id=77),)
    return a_guest(
        id=NUMBERS["two"], name="instance-two", vifs=(vif,), security_groups=groups, read_at=time.monotonic()
    )


@pytest.fixture
def neighbour(host):
    """Another guest here."""
    spec = a_machine(NUMBERS["neighbour"], RULES)
    host.start(spec)
    yield spec
    host.end(spec)


def test_connections_end_with_their_guest_and_no_others(host, neighbour):
    one = a_machine(NUMBERS["one"], RULES)
    host.start(one)
    known, others = host.establish(one), host.establish(neighbour)
    withdrawn = [replace(spec, security_groups=()) for spec in (one, neighbour)]
    host.firewall.refresh_security_group_rules(withdrawn)
    assert all(host.gets(one, packet) for packet in known)
    host.end(one)
    assert "=10.9.0.5 " not in host.inner.execute(["conntrack", "-L"])
    two = heir(one)
    host.start(two)
    assert [host.gets(two, packet) for packet in known] == [False] * len(FLOWS)
    assert [host.gets(neighbour, packet) for packet in others] == [True] * len(FLOWS)
    host.end(two)


def test_a_guest_gets_nothing_of_who_had_its_address_elsewhere(host, neighbour):
    asked = Packet(direction=OUT, protocol="udp", source="10.9.0.7", dest="10.9.0.5", sport=4000, dport=4000)
    assert host.sends(neighbour, asked)
    assert host.gets(neighbour, replace(asked, direction=IN, source=asked.dest, dest=asked.source))
    two = heir(a_machine(NUMBERS["one"]))
    host.start(two)
    tap, mac = host.tap(neighbour), neighbour.vifs[0].mac
    asked = replace(asked, mac=mac)
    assert not crosses(tap, host.tap(two), asked, two.vifs[0].mac, question(tap, mac, asked.source))
    host.end(two)
