"""Networks: what may be one. Addresses are claimed by the API and the daemons, in the database."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Network, NetmaskValueError, ip_address
from typing import Any

from compute import valid
from compute.context import RequestContext
from compute.db_errors import translated
from compute.errors import ConflictError, InvalidInputError
from compute.policy import project_filter, require_admin
from db import networks
from db.networks import Network
from db.session import Database
from virt.network.mode import NetworkMode

_BRIDGE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
"""An interface name: at most 15 characters (IFNAMSIZ), none that a shell, a path or dnsmasq could misread."""


def create(
    db: Database,
    context: RequestContext,
    *,
    label: str,
    cidr: str,
    bridge: str,
    gateway: str | None = None,
    dns: Sequence[str] = (),
    vlan: int | None = None,
    cidr_v6: str | None = None,
    project_id: str | None = None,
    bridge_interface: str | None = None,
    mode: NetworkMode | None = None,
) -> Network:
    """Define a network with its pool of addresses; `mode` is how hosts will serve it.

    Raises InvalidInputError, DuplicateError when the label or the VLAN is taken, and ConflictError when its addresses
    overlap another network's, or two networks would be served on one bridge.
    """
    require_admin(context, "network create")
    block = _ipv4(cidr)
    values: dict[str, Any] = {
        "label": valid.name("network label", label),
        "cidr": str(block),
        "bridge": interface("bridge", bridge),
        "gateway": None if gateway is None else _inside(gateway, block),
        "dns": ",".join(_addresses(dns)) or None,
        "vlan": None if vlan is None else valid.whole("vlan", vlan, least=1, most=4094),
        "project_id": project_id,
        "bridge_interface": None if bridge_interface is None else interface("bridge_interface", bridge_interface),
        **_ipv6(cidr_v6),
    }
    with translated(duplicate=f"network {label!r:.60} exists, or its VLAN is taken"):
        others = db.query(networks.list_all)
        _refuse_overlap(block, others)
        _refuse_what_cannot_be_served(mode or NetworkMode(), label, bridge, vlan, others)
        return db.query(networks.get, db.run(networks.create, **values))


def get_all(db: Database, context: RequestContext) -> list[Network]:
    """Networks by id; those that the caller's instances may use, or all for an administrator."""
    with translated():
        return db.query(networks.list_all, project_id=project_filter(context))


def pool(db: Database, network_id: int) -> tuple[int, int]:
    """How many addresses of a network instances hold, and how many are free."""
    with translated():
        rows = [row for row in db.query(networks.list_addresses, network_id) if not row.reserved]
    held = sum(row.instance_id is not None for row in rows)
    return held, len(rows) - held


def delete(db: Database, context: RequestContext, key: str) -> None:
    """Withdraw a network by label or id; InUseError while an instance holds an address of it."""
    require_admin(context, "network delete")
    with translated():
        db.run(networks.delete, db.query(networks.find, key).id)


def interface(what: str, name: str) -> str:
    """The name of a network interface, or InvalidInputError."""
    if not _BRIDGE.fullmatch(name):
        raise InvalidInputError(f"{what} {name!r:.60}: an interface name has 1 to 15 letters, digits, '_', '.' or '-'")
    return name


def _ipv4(cidr: str) -> IPv4Network:
    try:
        return IPv4Network(cidr)
    except (AddressValueError, NetmaskValueError, ValueError) as exc:
        raise InvalidInputError(f"network {cidr!r:.60}: {exc!s:.120}") from exc


def _inside(gateway: str, block: IPv4Network) -> str:
    try:
        address = IPv4Address(gateway)
    except AddressValueError as exc:
        raise InvalidInputError(f"gateway {gateway!r:.60}: {exc!s:.120}") from exc
    if address not in block or address in {block.network_address, block.broadcast_address}:
        raise InvalidInputError(f"gateway {address} is no host address of {block}")
    return str(address)


def _addresses(values: Sequence[str]) -> list[str]:
    try:
        return [str(ip_address(value)) for value in values]
    except ValueError as exc:
        raise InvalidInputError(f"dns: {exc!s:.120}") from exc


def _ipv6(cidr: str | None) -> dict[str, str]:
    if cidr is None:
        return {}
    try:
        block = IPv6Network(cidr)
    except (AddressValueError, NetmaskValueError, ValueError) as exc:
        raise InvalidInputError(f"cidr_v6 {cidr!r:.60}: {exc!s:.120}") from exc
    if block.prefixlen != 64:
        raise InvalidInputError(f"cidr_v6 {block}: addresses come from MACs, which takes a /64")
    return {"cidr_v6": str(block), "gateway_v6": str(block[1]), "netmask_v6": str(block.prefixlen)}


def _refuse_what_cannot_be_served(
    mode: NetworkMode, label: str, bridge: str, vlan: int | None, others: Sequence[Network]
) -> None:
    if mode.demands_vlan and vlan is None:
        raise InvalidInputError(f"network {label!r:.60}: has no VLAN, and network_manager is vlan")
    sharer = next((other for other in others if other.bridge == bridge), None)
    if mode.serves and sharer is not None:
        raise ConflictError(f"bridge {bridge} is network {sharer.label}'s: two DHCP servers cannot share one")


def _refuse_overlap(block: IPv4Network, others: Sequence[Network]) -> None:
    for other in others:
        if block.overlaps(IPv4Network(other.cidr)):
            raise ConflictError(f"network {block} overlaps network {other.label} ({other.cidr})")
