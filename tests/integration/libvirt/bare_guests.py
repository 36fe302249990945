"""Guests of QEMU with a network card and nothing else, for tests of packets: what they send is put into the card."""

from __future__ import annotations

import json
import socket
import struct
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface
from typing import Any

import libvirt
import libvirt_qemu

from tests.builders import a_guest, a_network, a_vif
from tests.integration.processes import wait_until
from tests.integration.servers import LibvirtHost
from virt.execute import run
from virt.firewall.base import FirewallDriver
from virt.firewall.combined import CombinedFirewall
from virt.firewall.guard import TapGuard
from virt.firewall.iptables import IptablesFirewall
from virt.firewall.iptables_host import FilterHost
from virt.firewall.nwfilter import NWFilterFirewall
from virt.firewall.nwfilter_basics import BasicFilters
from virt.libvirt.host import Host
from virt.libvirt.nwfilters import NWFilters
from virt.spec import InstanceSpec

BRIDGE, WIRE, FAR = "br0", "wire0", "wire1"
BRIDGE_MAC = "02:00:00:00:00:01"  # its own: as a bridge takes its ports' by turns, neighbours would be forgotten
GATE, ROAD = "gate0", "road0"
GATEWAY = {4: "10.0.0.254", 6: "fd00::fe"}
FIREWALLS = ("nwfilter", "iptables", "nwfilter+iptables")
THEIRS = "02:00:00:00:00:99"
_DOMAIN = """<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type><bios rebootTimeout='-1'/></os><devices>
<interface type='bridge'><mac address='{mac}'/><source bridge='{bridge}'/><target dev='{dev}'/><model type='e1000'/>
{filterref}</interface></devices></domain>"""


def a_network_of_tests() -> Any:
    """A network of both families on the tests' bridge."""
    return a_network(bridge=BRIDGE, cidr="10.0.0.0/24", cidr_v6="fd00::/64", gateway=IPv4Address(GATEWAY[4]))


class BareHost:
    """A libvirt host with a bridge, and a wire into it: what is sent into WIRE comes out of the bridge's port FAR."""

    def __init__(self, host: LibvirtHost) -> None:
        self.host, self.connection = host, libvirt.open(host.uri)
        self.filters = NWFilters(Host(host.uri))
        for words in (
            f"link add {BRIDGE} address {BRIDGE_MAC} type bridge",
            f"link add {WIRE} type veth peer name {FAR}",
            f"link set {FAR} master {BRIDGE} up",
            f"link set {WIRE} up",
            f"link set {BRIDGE} up",
        ):
            self.execute(["ip", *words.split()])

    def execute(self, cmd: list[str], **options: Any) -> str:
        """Run a program in the host's namespaces."""
        return run(self.host.inside(*cmd), **options)

    def route(self, *beyond: str) -> None:
        """Be the gateway of the guests, and of these addresses of others, which are reached by GATE; ROAD leads there.

        It says nothing by itself to those who ask for a port that is closed: what it sends is what a test sends.
        """
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            self.execute(["tee", f"/proc/sys/net/{name}"], stdin="1")
        for name in ("ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter"):
            self.execute(["tee", f"/proc/sys/net/{name}"], stdin="0")
        made = [f"link add {GATE} type veth peer name {ROAD}", f"link set {GATE} up", f"link set {ROAD} up"]
        made += [f"addr add {own} dev {BRIDGE} nodad" for own in (f"{GATEWAY[4]}/24", f"{GATEWAY[6]}/64")]
        for one in beyond:
            made += [f"route add {one} dev {GATE}", _neighbour(one, THEIRS, GATE)]
        self.execute(["ip", "-batch", "-"], stdin="\n".join((*made, "")))
        silent = "type filter hook output priority -310; }; add rule inet silent out tcp flags & rst == rst drop"
        self.execute(["nft", f"add table inet silent; add chain inet silent out {{ {silent}"])

    def know(self, spec: InstanceSpec) -> None:
        """Know a guest's addresses, for it does not answer when it is asked."""
        vif = spec.vifs[0]
        known = (_neighbour(str(one.ip), vif.mac, BRIDGE) for one in (*vif.addresses, *vif.addresses_v6))
        self.execute(["ip", "-batch", "-"], stdin="\n".join((*known, "")))

    def mac_of(self, dev: str) -> str:
        """The address of one of the host's interfaces."""
        return self.execute(["cat", f"/sys/class/net/{dev}/address"]).strip()

    def reconnect(self) -> None:
        """Find libvirt again after its restart."""
        self.connection = libvirt.open(self.host.uri)

    def firewall(self, kind: str = "nwfilter") -> FirewallDriver:
        """The firewall of a daemon that has just started there: one of FIREWALLS."""
        made = self._made(kind)
        made.init_host()
        return made

    def _made(self, kind: str) -> FirewallDriver:
        if kind == "nwfilter":
            return NWFilterFirewall(self.filters, TapGuard(self.execute), execute=self.execute)
        groups = IptablesFirewall(FilterHost(self.execute), mark=1 << 25, max_members=65536)
        basics = BasicFilters(self.filters, execute=self.execute)
        return groups if kind == "iptables" else CombinedFirewall(groups, basics)

    def start(self, spec: InstanceSpec, firewall: FirewallDriver, flags: int = 0) -> None:
        """Start a guest as the driver does: filters, domain, and the taps opened. flags: of createXML."""
        firewall.setup_basic_filtering(spec)
        firewall.prepare_instance_filter(spec)
        self.connection.createXML(self.document(spec, firewall), flags)
        firewall.apply_instance_filter(spec)

    def document(self, spec: InstanceSpec, firewall: FirewallDriver | None) -> str:
        """The domain of a guest, behind its filter unless there is no firewall."""
        vif = spec.vifs[0]
        name = None if firewall is None else firewall.filter_name(spec, vif)
        filterref = "" if name is None else f"<filterref filter='{name}'/>"
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


def _neighbour(address: str, mac: str, dev: str) -> str:
    return f"neigh replace {address} lladdr {mac} dev {dev} nud permanent"


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
