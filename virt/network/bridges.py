"""Bridges and VLAN devices of a host, through netlink. Idempotent, and safe against another process doing the same."""

from __future__ import annotations

import errno
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from virt.errors import NetworkError
from virt.spec import Network

_MAX_NAME = 15


class Bridges:
    """The bridges of one network namespace: this process's, or the one at the path `netns`."""

    def __init__(self, vlan_interface: str = "eth0", netns: str | None = None) -> None:
        self._vlan_interface, self._netns = vlan_interface, netns

    def ensure(self, network: Network) -> None:
        """Have the network's bridge up, on its VLAN when it has one. Raises NetworkError; never takes addresses away.

        A bridge without VLAN or interface of its own joins guests of this host and whatever an operator put into it.
        """
        try:
            with IPRoute(netns=self._netns) if self._netns else IPRoute() as ip:
                bridge = _ensure(ip, network.bridge, "bridge", br_forward_delay=0, br_stp_state=0)
                if network.vlan is not None:
                    self._join_vlan(ip, network, bridge)
                elif network.bridge_interface:
                    _enslave(ip, _find(ip, network.bridge_interface), network.bridge_interface, bridge)
        except NetlinkError as exc:
            raise NetworkError(f"network {network.label}: bridge {network.bridge}: {exc}") from exc
        except OSError as exc:
            raise NetworkError(f"network {network.label}: netlink: {exc}") from exc

    def _join_vlan(self, ip: IPRoute, network: Network, bridge: int) -> None:
        parent = network.bridge_interface or self._vlan_interface
        name = f"vlan{network.vlan}"
        vlan = _ensure(ip, name, "vlan", link=_find(ip, parent), vlan_id=network.vlan)
        _enslave(ip, vlan, name, bridge)


def _find(ip: IPRoute, name: str) -> int:
    index = _lookup(ip, name)
    if index is None:
        raise NetworkError(f"this host has no interface {name}")
    return index


def _lookup(ip: IPRoute, name: str) -> int | None:
    found = ip.link_lookup(ifname=name)
    return int(found[0]) if found else None


def _ensure(ip: IPRoute, name: str, kind: str, **options: Any) -> int:
    """The index of a device that is up and of this kind, made if need be."""
    if not 0 < len(name) <= _MAX_NAME:
        raise NetworkError(f"{name!r} cannot be the name of a {kind}")
    index = _lookup(ip, name)
    if index is None:
        _create(ip, name, kind, options)
        index = _find(ip, name)
    if _kind(ip, index) != kind:
        raise NetworkError(f"{name} exists, and is not a {kind}")
    ip.link("set", index=index, state="up")
    return index


def _create(ip: IPRoute, name: str, kind: str, options: dict[str, Any]) -> None:
    try:
        ip.link("add", ifname=name, kind=kind, **options)
    except NetlinkError as exc:
        if exc.code != errno.EEXIST:  # another process was faster
            raise NetworkError(f"cannot make the {kind} {name}: {exc.args[1]}") from exc


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
