"""What dnsmasq is told about a network: pure text.

Every address is bound to a MAC address. There is no pool, and a MAC address that is not listed gets no answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path

from virt.spec import Network, Vif

_SECOND = "second"
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class DhcpOptions:
    """What every network's guests are told. lease_s in seconds; mtu 0: nothing."""

    domain: str = "novalocal"
    lease_s: int = 86400
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class Folder:
    """Where one network's DHCP server keeps its files."""

    path: Path

    @property
    def hosts(self) -> Path:
        """Directory of lines as of `host_line`, a file an interface."""
        return self.path / "hosts"

    @property
    def leases(self) -> Path:
        """Who has which address."""
        return self.path / "leases"

    @property
    def pid(self) -> Path:
        """The server's process id."""
        return self.path / "dnsmasq.pid"


def host_line(vif: Vif, hostname: str, *, is_way_out: bool = True) -> str:
    """What an interface is given; a router only if the guest's packets to elsewhere are to leave by it."""
    name = hostname.partition(".")[0]
    return ",".join([
        vif.mac.lower(),
        *([] if is_way_out else [f"set:{_SECOND}"]),
        *(str(address.ip) for address in vif.addresses),
        *(f"[{address.ip}]" for address in vif.addresses_v6 if vif.network.advertised),
        *([name] if _HOST_NAME.fullmatch(name) else []),
    ])  # fmt: skip


def arguments(network: Network, folder: Folder, options: DhcpOptions) -> list[str]:
    """The command line of a network's DHCP server; it is also its name server when it is listed as one."""
    block = ip_network(network.cidr)
    return [
        "dnsmasq",
        "--conf-file=",
        "--no-hosts",
        "--bind-interfaces",
        f"--interface={network.bridge}",
        "--except-interface=lo",
        f"--pid-file={folder.pid}",
        f"--dhcp-leasefile={folder.leases}",
        f"--dhcp-hostsdir={folder.hosts}",
        f"--dhcp-range={block.network_address},static,{block.netmask},{options.lease_s}",
        *_elsewhere(network),
        f"--dhcp-lease-max={block.num_addresses}",
        "--dhcp-authoritative",
        "--dhcp-ignore=tag:!known",
        "--no-ping",
        "--quiet-dhcp",
        f"--domain={options.domain}",
        *_names(network, options),
        *_facts(network, options),
        *_ipv6(network, options),
    ]


def _elsewhere(network: Network) -> list[str]:
    """A server outside of the network's own range has to be told that it may serve it."""
    if network.dhcp_server == network.gateway:
        return []
    return [f"--shared-network={network.bridge},{ip_network(network.cidr).network_address}"]


def _names(network: Network, options: DhcpOptions) -> list[str]:
    if network.routing == "none" or network.gateway not in network.dns:
        return ["--port=0"]
    return ["--domain-needed", f"--local=/{options.domain}/"]


def _facts(network: Network, options: DhcpOptions) -> list[str]:
    """Router, name servers and MTU; an empty one keeps dnsmasq from naming itself."""
    servers = [str(server) for server in network.dns if isinstance(server, IPv4Address)]
    return [
        _option("option:router", [str(network.gateway)] if network.gateway else []),
        _option(f"tag:{_SECOND},option:router", []),
        _option("option:dns-server", servers),
        *([_option("option:mtu", [str(options.mtu)])] if options.mtu else []),
    ]


def _ipv6(network: Network, options: DhcpOptions) -> list[str]:
    """Router advertisements, for guests that make their address of their MAC, and DHCPv6, which gives the same one."""
    if not network.advertised or network.cidr_v6 is None:
        return []
    block = ip_network(network.cidr_v6)
    servers = [f"[{server}]" for server in network.dns if isinstance(server, IPv6Address)]
    return [
        f"--dhcp-range={block.network_address},static,slaac,{block.prefixlen},{options.lease_s}",
        "--enable-ra",
        "--quiet-dhcp6",
        "--quiet-ra",
        _option("option6:dns-server", servers),
        *([f"--ra-param={network.bridge},mtu:{options.mtu},60"] if options.mtu else []),
    ]


def _option(name: str, values: Iterable[str]) -> str:
    return "--dhcp-option=" + ",".join([name, *values])
