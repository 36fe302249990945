"""Bridges, VLAN devices and addresses of a host, through netlink.

Idempotent, and safe against another process doing the same. What others made is never taken away.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface, IPv6Interface, ip_network
from socket import AF_INET, AF_INET6
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from virt.errors import NetworkError
from virt.spec import Network

_MAX_NAME = 15
_NO_DUPLICATE_CHECK = 0x02
_GLOBAL, _LINK = 0, 253

Claim = Callable[[str], None]
"""Told of each thing (`link br100`, `address 10.0.0.1/24`) just before it is made."""


class Bridges:
    """The bridges of one network namespace: this process's, or the one at the path `netns`."""

    def __init__(self, vlan_interface: str = "eth0", netns: str | None = None, cluster: str = "") -> None:
        """cluster: the same on all hosts that share networks."""
        self._vlan_interface, self.netns, self._cluster = vlan_interface, netns, cluster

    def ensure(self, network: Network, claim: Claim = lambda _thing: None) -> None:
        """Have the network's bridge up, on its VLAN when it has one, with the addresses that the host has there.

        A bridge without VLAN or interface of its own joins guests of this host and whatever an operator put into it.
        Raises NetworkError; never takes addresses away.
        """
        with _netlink(self.netns, network) as ip:
            facts = {"br_forward_delay": 0, "br_stp_state": 0, "address": self.mac_of(network)}
            bridge = _ensure(ip, network.bridge, "bridge", claim, facts)
            if network.vlan is not None:
                self._join_vlan(ip, network, bridge, claim)
            elif network.bridge_interface:
                _enslave(ip, _find(ip, network.bridge_interface), network.bridge_interface, bridge)
            for address in addresses_of(network):
                _add_address(ip, bridge, address, claim)

    def remove(self, network: Network, made: Collection[str]) -> bool:
        """Take away what `ensure` made; False while a bridge has to stay because others use it. Raises NetworkError."""
        with _netlink(self.netns, network) as ip:
            bridge = _lookup(ip, network.bridge)
            if bridge is not None:
                for address in addresses_of(network):
                    if f"address {address}" in made:
                        _drop_address(ip, bridge, address)
                if f"link {network.bridge}" in made:
                    if _ports(ip, bridge) - {uplink_of(network)}:
                        return False
                    _delete(ip, network.bridge)
            vlan = f"vlan{network.vlan}"
            if f"link {vlan}" in made:
                _delete(ip, vlan)
        return True

    def mac_of(self, network: Network) -> str:
        """The address of a bridge made here: the same on every host, so a guest that moves finds its gateway there."""
        digest = hashlib.sha256(f"{self._cluster} {network.id} {network.bridge}".encode()).hexdigest()
        return f"02:6d:6e:{digest[0:2]}:{digest[2:4]}:{digest[4:6]}"

    def _join_vlan(self, ip: IPRoute, network: Network, bridge: int, claim: Claim) -> None:
        parent = network.bridge_interface or self._vlan_interface
        name = f"vlan{network.vlan}"
        vlan = _ensure(ip, name, "vlan", claim, {"link": _find(ip, parent), "vlan_id": network.vlan})
        _enslave(ip, vlan, name, bridge)


def addresses_of(network: Network) -> tuple[IPv4Interface | IPv6Interface, ...]:
    """What a host is called on the network's bridge."""
    if network.routing == "none" or network.gateway is None:
        return (IPv4Interface(f"{network.dhcp_server}/32"),) if network.dhcp_server is not None else ()
    own = IPv4Interface(f"{network.gateway}/{ip_network(network.cidr).prefixlen}")
    if not network.advertised or network.cidr_v6 is None or network.gateway_v6 is None:
        return (own,)
    return own, IPv6Interface(f"{network.gateway_v6}/{ip_network(network.cidr_v6).prefixlen}")


def uplink_of(network: Network) -> str | None:
    """The interface by which the network's bridge reaches other hosts."""
    return f"vlan{network.vlan}" if network.vlan is not None else network.bridge_interface or None


@contextmanager
def _netlink(netns: str | None, network: Network) -> Iterator[IPRoute]:
    """A netlink socket whose errors are NetworkErrors that name the network."""
    try:
        with IPRoute(netns=netns) if netns else IPRoute() as ip:
            yield ip
    except NetlinkError as exc:
        raise NetworkError(f"network {network.label}: bridge {network.bridge}: {exc}") from exc
    except OSError as exc:
        raise NetworkError(f"network {network.label}: netlink: {exc}") from exc


def _find(ip: IPRoute, name: str) -> int:
    index = _lookup(ip, name)
    if index is None:
        raise NetworkError(f"this host has no interface {name}")
    return index


def _lookup(ip: IPRoute, name: str) -> int | None:
    found = ip.link_lookup(ifname=name)
    return int(found[0]) if found else None


def _ensure(ip: IPRoute, name: str, kind: str, claim: Claim, facts: dict[str, Any]) -> int:
    """The index of a device that is up and of this kind, made if need be."""
    if not 0 < len(name) <= _MAX_NAME:
        raise NetworkError(f"{name!r} cannot be the name of a {kind}")
    index = _lookup(ip, name)
    if index is None:
        claim(f"link {name}")
        _create(ip, name, kind, facts)
        index = _find(ip, name)
    if _kind(ip, index) != kind:
        raise NetworkError(f"{name} exists, and is not a {kind}")
    ip.link("set", index=index, state="up")
    return index


def _create(ip: IPRoute, name: str, kind: str, facts: dict[str, Any]) -> None:
    try:
        ip.link("add", ifname=name, kind=kind, **facts)
    except NetlinkError as exc:
        if exc.code != errno.EEXIST:  # another process was faster
            raise NetworkError(f"cannot make the {kind} {name}: {exc.args[1]}") from exc


def _delete(ip: IPRoute, name: str) -> None:
    index = _lookup(ip, name)
    if index is not None:
        ip.link("del", index=index)


def _ports(ip: IPRoute, bridge: int) -> set[str | None]:
    """The names of the interfaces in a bridge."""
    links = ip.get_links()
    return {link.get_attr("IFLA_IFNAME") for link in links if link.get_attr("IFLA_MASTER") == bridge}


def _kind(ip: IPRoute, index: int) -> str | None:
    info = ip.get_links(index)[0].get_attr("IFLA_LINKINFO")
    return info.get_attr("IFLA_INFO_KIND") if info else None


def _enslave(ip: IPRoute, index: int, name: str, bridge: int) -> None:
    master = ip.get_links(index)[0].get_attr("IFLA_MASTER")
    if master not in {None, 0, bridge}:
        raise NetworkError(f"interface {name} is in another bridge")
    if master != bridge:
        ip.link("set", index=index, master=bridge)
    ip.link("set", index=index, state="up")


def _add_address(ip: IPRoute, index: int, address: IPv4Interface | IPv6Interface, claim: Claim) -> None:
    if _has_address(ip, index, address):
        return
    claim(f"address {address}")
    scope = _LINK if address.is_link_local else _GLOBAL
    facts: dict[str, Any] = {"scope": scope} if address.version == 4 else {"flags": _NO_DUPLICATE_CHECK}
    try:
        ip.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen, **facts)
    except NetlinkError as exc:
        if exc.code != errno.EEXIST:
            raise


def _drop_address(ip: IPRoute, index: int, address: IPv4Interface | IPv6Interface) -> None:
    if _has_address(ip, index, address):
        ip.addr("del", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)


def _has_address(ip: IPRoute, index: int, address: IPv4Interface | IPv6Interface) -> bool:
    family = AF_INET if address.version == 4 else AF_INET6
    return any(found.get_attr("IFA_ADDRESS") == str(address.ip) for found in ip.get_addr(family=family, index=index))
