"""A host of network namespaces: a bridge with taps and a cable, a second network that is routed, and wires to all.

A tap is one end of a veth pair named as a guest's tap; what is sent at the other end is what a guest sends. Nothing
but what a test sends is on the wires: no end has an address, and nobody answers by himself.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface

from pyroute2 import netns

from tests.builders import a_guest, a_network, a_vif
from tests.firewall_model import Packet
from tests.integration.libvirt.frames import BROADCAST, frame, marks
from tests.integration.processes import require_program, require_root
from virt.execute import run
from virt.firewall.iptables import IptablesFirewall
from virt.firewall.iptables_host import FilterHost
from virt.firewall.iptables_ipset import SetSocket
from virt.firewall.iptables_netlink import ElementSocket
from virt.firewall.rules import link_local
from virt.spec import InstanceSpec, SecurityGroup

GATEWAY, FAR_GATEWAY = "02:00:00:00:00:01", "02:00:00:00:08:01"
CABLE, FAR = "02:00:00:00:00:99", "02:00:00:00:08:99"
NETWORK = a_network(bridge="br9", cidr="10.9.0.0/24", gateway=IPv4Address("10.9.0.1"), cidr_v6="fd09::/64")
_PATIENCE_S = 20.0
_numbers = itertools.count(1)

_SETUP = f"""
link set lo up
link add br9 address {GATEWAY} type bridge forward_delay 0 mcast_snooping 0
link set br9 up
addr add 10.9.0.1/24 dev br9
addr add fd09::1/64 dev br9 nodad
link add far0 address {FAR_GATEWAY} type veth peer name far1
link set far0 up
link set far1 up
addr add 10.8.0.1/24 dev far0
addr add fd08::1/64 dev far0 nodad
link add cable0 type veth peer name cable1
link set cable0 master br9 up
link set cable1 up
"""
_SWITCHES = (
    "ipv4/ip_forward=1",
    "ipv6/conf/all/forwarding=1",
    "ipv6/conf/all/accept_dad=0",  # a link-local address is there at once
    "ipv6/conf/default/accept_dad=0",
    "ipv4/conf/all/rp_filter=0",
    "ipv4/conf/default/rp_filter=0",
)


def a_machine(number: int, *groups: SecurityGroup) -> InstanceSpec:
    """Guest `number` of the bridged network."""
    vif = a_vif(
        mac=f"02:16:3e:00:{number >> 8:02x}:{number & 255:02x}",
        network=NETWORK,
        addresses=(IPv4Interface(f"10.9.0.{number}/24"),),
        addresses_v6=(IPv6Interface(f"fd09::{number:x}/64"),),
    )
    return a_guest(id=number, name=f"instance-{number:08x}", vifs=(vif,), security_groups=groups)


class Wire:
    """One end of a cable: frames go in, and what comes out is heard."""

    def __init__(self, name: str, dev: str) -> None:
        self.heard: list[bytes] = []
        self._socket = _within(name, lambda: _packets(dev))
        self._is_closed = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def send(self, *frames: bytes) -> None:
        """Put frames on the wire."""
        for one in frames:
            self._socket.send(one)

    def await_mark(self, mark: int) -> None:
        """Return when the frame with this mark has come; all that were sent before it have then come or never will."""
        until = time.monotonic() + _PATIENCE_S
        while mark not in marks(self.heard[-50:]):
            if time.monotonic() > until:
                raise TimeoutError(f"the frame {mark} never came")
            time.sleep(0.002)

    def close(self) -> None:
        """Listen no more."""
        self._is_closed = True
        self._listener.join(5)
        self._socket.close()

    def _listen(self) -> None:
        while not self._is_closed:
            with contextlib.suppress(TimeoutError):
                data, (_, _, kind, *_rest) = self._socket.recvfrom(4096)
                if kind != socket.PACKET_OUTGOING:
                    self.heard.append(data)


class FilteredHost:
    """One compute host with the iptables firewall; variant: nft or legacy."""

    def __init__(self, variant: str) -> None:
        require_root()
        for program in ("ip", "nft", "ipset", "iptables"):
            require_program(program)
        self.variant, self.name = variant, f"mn-{secrets.token_hex(4)}"
        self.taps: dict[str, Wire] = {}
        self.elements, self.sets = ElementSocket(self._socket), SetSocket(self._socket)
        run(["ip", "netns", "add", self.name])
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        for switch in _SWITCHES:
            path, _, value = switch.partition("=")
            self.execute(["tee", f"/proc/sys/net/{path}"], timeout_s=10, stdin=value)
        self.execute(["ip", "-batch", "-"], timeout_s=30, stdin=_SETUP)
        self.cable, self.far = Wire(self.name, "cable1"), Wire(self.name, "far1")
        for address in ("10.8.0.70", "10.8.0.8", "fd08::46", "fd08::8", "10.8.0.6", "fd08::6", "10.8.0.7", "fd08::7"):
            self._know(address, FAR, "far0")
        self.firewall = self.start_firewall()

    def start_firewall(self) -> IptablesFirewall:
        """The firewall of a daemon that starts now."""
        feeds = {"feed_elements": self.elements.feed, "feed_sets": self.sets.feed}
        host = FilterHost(self.execute, variant=self.variant, **feeds)
        firewall = IptablesFirewall(host, mark=1 << 25, max_members=65536)
        firewall.init_host()
        return firewall

    def execute(self, cmd: Sequence[str], *, timeout_s: float = 60.0, stdin: str | None = None) -> str:
        """virt.execute.run in this host's network."""
        return run(["nsenter", f"--net=/run/netns/{self.name}", "--", *cmd], timeout_s=timeout_s, stdin=stdin)

    def plug(self, spec: InstanceSpec) -> Wire:
        """Make the guest's tap, and know its addresses; filters are the test's matter."""
        (vif,) = spec.vifs
        end = f"g{vif.dev[3:]}"
        script = f"link add {vif.dev} type veth peer name {end}\nlink set {vif.dev} master br9 up\nlink set {end} up\n"
        self.execute(["ip", "-batch", "-"], stdin=script)
        for address in (*vif.addresses, *vif.addresses_v6):
            self._know(str(address.ip), vif.mac, "br9")
        self._know(str(link_local(vif.mac)), vif.mac, "br9")
        self.taps[vif.dev] = Wire(self.name, end)
        return self.taps[vif.dev]

    def start(self, spec: InstanceSpec) -> Wire:
        """A guest behind its filters."""
        self.firewall.prepare_instance_filter(spec)
        return self.plug(spec)

    def _socket(self, *kind: int) -> socket.socket:
        return _within(self.name, lambda: socket.socket(*kind))

    def _know(self, address: str, mac: str, dev: str) -> None:
        self.execute(["ip", "neigh", "replace", address, "lladdr", mac, "dev", dev, "nud", "permanent"])

    def close(self) -> None:
        """Leave nothing."""
        for wire in (*self.taps.values(), getattr(self, "cable", None), getattr(self, "far", None)):
            if wire is not None:
                wire.close()
        subprocess.run(["ip", "netns", "del", self.name], check=False, timeout=30)


def crosses(source: Wire, dest: Wire, packet: Packet, to_mac: str, probe: tuple[Wire, bytes, int]) -> bool:
    """True when a packet gets from one wire to the other. probe: a frame that will, sent after it, and its mark."""
    mark = number()
    source.send(frame(packet, to_mac, mark))
    wire, last, last_mark = probe
    wire.send(last)
    dest.await_mark(last_mark)
    return mark in marks(dest.heard)


def sure(wire: Wire, packet: Packet, to_mac: str) -> tuple[Wire, bytes, int]:
    """A packet that will cross, as a probe."""
    mark = number()
    return wire, frame(packet, to_mac, mark), mark


def question(wire: Wire, mac: str, source: str) -> tuple[Wire, bytes, int]:
    """An ARP question of this machine, which everybody on the bridge gets."""
    asked = Packet(direction="in", protocol="arp", source=source, dest="10.9.0.250", mac=mac)
    return sure(wire, asked, BROADCAST)


def number() -> int:
    """A mark that no other frame bears."""
    return next(_numbers)


def _within(name: str, make: Callable[[], socket.socket]) -> socket.socket:
    """What `make` makes in a network namespace: a thread goes there for it, and ends."""
    made: list[socket.socket] = []

    def go() -> None:
        netns.setns(name)
        made.append(make())

    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    return made[0]


def _packets(dev: str) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    made.settimeout(0.1)
    made.bind((dev, 0))
    return made


@contextlib.contextmanager
def a_host(variant: str) -> Iterator[FilteredHost]:
    """A host for some tests."""
    host = FilteredHost(variant)
    try:
        yield host
    finally:
        host.close()
