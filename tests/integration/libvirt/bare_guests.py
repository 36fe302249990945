"""Guests of QEMU with a network card and nothing else, for tests of packets: what they send is put into the card."""

from __future__ import annotations

import json
import socket
import struct
from ipaddress import IPv4Interface, IPv6Interface
from typing import Any

import libvirt
import libvirt_qemu

from tests.builders import a_guest, a_network, a_vif
from tests.integration.processes import wait_until
from tests.integration.servers import LibvirtHost
from virt.execute import run
from virt.firewall.base import FirewallDriver
from virt.firewall.guard import TapGuard
from virt.firewall.nwfilter import NWFilterFirewall
from virt.libvirt.host import Host
from virt.libvirt.nwfilters import NWFilters
from virt.spec import InstanceSpec

BRIDGE, WIRE, FAR = "br0", "wire0", "wire1"
_DOMAIN = """<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type><bios rebootTimeout='-1'/></os><devices>
<interface type='bridge'><mac address='{mac}'/><source bridge='{bridge}'/><target dev='{dev}'/><model type='e1000'/>
{filterref}</interface></devices></domain>"""


def a_network_of_tests() -> Any:
    """A network of both families on the tests' bridge."""
    return a_network(bridge=BRIDGE, cidr="10.0.0.0/24", cidr_v6="fd00::/64")


class BareHost:
    """A libvirt host with a bridge, and a wire into it: what is sent into WIRE comes out of the bridge's port FAR."""

    def __init__(self, host: LibvirtHost) -> None:
        self.host, self.connection = host, libvirt.open(host.uri)
        self.filters = NWFilters(Host(host.uri))
        for words in (
            f"link add {BRIDGE} type bridge",
            f"link add {WIRE} type veth peer name {FAR}",
            f"link set {FAR} master {BRIDGE} up",
            f"link set {WIRE} up",
            f"link set {BRIDGE} up",
        ):
            self.execute(["ip", *words.split()])

    def execute(self, cmd: list[str], **options: Any) -> str:
        """Run a program in the host's namespaces."""
        return run(self.host.inside(*cmd), **options)

    def reconnect(self) -> None:
        """Find libvirt again after its restart."""
        self.connection = libvirt.open(self.host.uri)

    def firewall(self) -> NWFilterFirewall:
        """The firewall of a daemon that has just started there."""
        made = NWFilterFirewall(self.filters, TapGuard(self.execute), execute=self.execute)
        made.init_host()
        return made

    def start(self, spec: InstanceSpec, firewall: FirewallDriver) -> None:
        """Start a guest as the driver does: filters, domain, and the taps opened."""
        firewall.setup_basic_filtering(spec)
        firewall.prepare_instance_filter(spec)
        self.connection.createXML(self.document(spec, firewall), 0)
        firewall.apply_instance_filter(spec)

    def document(self, spec: InstanceSpec, firewall: FirewallDriver | None) -> str:
        """The domain of a guest, behind its filter unless there is no firewall."""
        vif = spec.vifs[0]
        filterref = "" if firewall is None else f"<filterref filter='{firewall.filter_name(spec, vif)}'/>"
        return _DOMAIN.format(
            name=spec.name, uuid=spec.uuid, mac=vif.mac, bridge=BRIDGE, dev=vif.dev, filterref=filterref
        )

    def stop(self, spec: InstanceSpec, firewall: FirewallDriver | None = None) -> None:
        """End a guest, and its filters if there is a firewall."""
        self.connection.lookupByName(spec.name).destroy()
        if firewall is not None:
            firewall.unfilter_instance(spec)

    def card(self, spec: InstanceSpec) -> Card:
        """What the guest's network card sends is what is put into this."""
        path = self.host.folder / f"{spec.name}.card"
        self._monitor(spec, "chardev-add", id="card", backend=_listening(str(path)))
        self._monitor(
            spec, "object-add", **{"qom-type": "filter-redirector", "id": "sent", "netdev": "hostnet0", "queue": "rx",
                                   "indev": "card"},
        )  # fmt: skip
        wait_until(path.exists, 2, f"socket of {spec.name}'s card")
        return Card(str(path))

    def _monitor(self, spec: InstanceSpec, command: str, **arguments: Any) -> None:
        asked = json.dumps({"execute": command, "arguments": arguments})
        answer = json.loads(libvirt_qemu.qemuMonitorCommand(self.connection.lookupByName(spec.name), asked, 0))
        if "error" in answer:
            raise RuntimeError(f"{command}: {answer['error']}")


class Card:
    """A guest's end of its network card."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)

    def send(self, *frames: bytes) -> None:
        """Have the guest send frames."""
        for one in frames:
            self._socket.sendall(struct.pack("!I", len(one)) + one)

    def close(self) -> None:
        """Send no more."""
        self._socket.close()


def _listening(path: str) -> dict[str, Any]:
    address = {"type": "unix", "data": {"path": path}}
    return {"type": "socket", "data": {"addr": address, "server": True, "wait": False}}


def a_bare_guest(number: int, **changes: Any) -> InstanceSpec:
    """A guest with the addresses 10.0.0.`number` and fd00::`number`."""
    vif = a_vif(
        mac=f"02:16:3e:00:00:{number:02x}",
        network=a_network_of_tests(),
        addresses=(IPv4Interface(f"10.0.0.{number}/24"),),
        addresses_v6=(IPv6Interface(f"fd00::{number:x}/64"),),
    )
    return a_guest(**({"vifs": (vif,)} | changes))
