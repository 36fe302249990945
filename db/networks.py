"""Networks and their fixed addresses: a pool of rows, from which an address is claimed in two statements."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from typing import Any

import sqlalchemy as sa

from db import rows
from db.errors import (
    AddressPoolEmptyError,
    AddressUnavailableError,
    InvalidNetworkError,
    RowInUseError,
    RowNotFoundError,
)
from db.models import fixed_ips, instances, networks
from db.prepared import Prepared
from db.session import Tx, utcnow

_CHUNK = 4096
_LARGEST_PREFIX, _SMALLEST_PREFIX = 16, 30


@dataclass(frozen=True, slots=True)
class Network:
    """One network; addresses are text, `dns` is a comma-separated list."""

    id: int
    label: str
    cidr: str
    netmask: str
    broadcast: str | None
    gateway: str | None
    dns: str | None
    dhcp_start: str | None
    bridge: str
    bridge_interface: str | None
    vlan: int | None
    injected: bool
    cidr_v6: str | None
    gateway_v6: str | None
    netmask_v6: str | None
    project_id: str | None
    host: str | None


@dataclass(frozen=True, slots=True)
class ClaimedAddress:
    """An address that an instance now holds."""

    network: Network
    address: str
    mac: str


@dataclass(frozen=True, slots=True)
class HeldAddress:
    """Which instance holds which address."""

    instance_id: int
    network: Network
    address: str
    mac: str


@dataclass(frozen=True, slots=True)
class FixedIp:
    """One row of a network's pool."""

    id: int
    network_id: int
    address: str
    instance_id: int | None
    mac_address: str | None
    reserved: bool


_N, _F = networks.c, fixed_ips.c
_WIDTH = len(fields(Network))
_LIVE = rows.select_live(Network, networks).order_by(_N.id)
_BY_ID = Prepared(rows.select_live(Network, networks).where(_N.id == sa.bindparam("network_id")))
_BY_KEY = Prepared(
    rows.select_live(Network, networks)
    .where(sa.or_(_N.label == sa.bindparam("key"), _N.id == sa.bindparam("network_id")))
    .order_by(sa.case((_N.label == sa.bindparam("key"), 0), else_=1))
    .limit(1)
)
_DEFAULT = Prepared(
    rows.select_live(Network, networks)
    .where(sa.or_(_N.project_id == sa.bindparam("project_id"), _N.project_id.is_(None)))
    .order_by(sa.case((_N.project_id.is_(None), 1), else_=0), _N.id)
    .limit(1)
)


def create(
    tx: Tx,
    *,
    label: str,
    cidr: str,
    bridge: str,
    gateway: str | None = None,
    reserved: Collection[str] = (),
    bottom: int = 0,
    top: int = 0,
    **facts: Any,
) -> int:
    """Add an IPv4 network with a row for each address and return its id; the label and VLAN must be free.

    Never handed out: the network and broadcast addresses, the gateway (by default the first host address), those in
    `reserved`, and the `bottom` lowest and `top` highest host addresses. `facts`: the other columns of Network.
    Raises InvalidNetworkError for a network larger than /16 or smaller than /30, or when an address is outside it.
    """
    block = _block(cidr)
    hosts = [str(address) for address in block.hosts()]
    gateway = gateway or hosts[0]
    kept = {str(block[0]), str(block[-1]), gateway, *reserved, *hosts[:bottom], *hosts[len(hosts) - top :]}
    _require_inside(block, {gateway, *reserved})
    first_free = next((address for address in hosts if address not in kept), None)
    if first_free is None:
        raise InvalidNetworkError(f"network {label}: {block} has no address left to hand out")
    values = {"netmask": str(block.netmask), "broadcast": str(block.broadcast_address), "dhcp_start": first_free}
    values |= {"label": label, "cidr": str(block), "bridge": bridge, "gateway": gateway, **facts}
    network_id = rows.insert(tx, networks, values)
    _fill(tx, network_id, (str(address) for address in block), kept)
    return network_id


def get(tx: Tx, network_id: int) -> Network:
    """The live network with this id."""
    return rows.one(tx, Network, _BY_ID, "network", network_id, {"network_id": network_id})


def find(tx: Tx, key: str | int) -> Network:
    """The live network that `key` means: as a label first, then as an id."""
    return rows.one(tx, Network, _BY_KEY, "network", key, {"key": str(key), "network_id": rows.row_id(key)})


def default_for(tx: Tx, project_id: str) -> Network:
    """The network of an instance that asked for none: the project's own lowest id, else the lowest without project."""
    kind = "network for project"
    return rows.one(tx, Network, _DEFAULT, kind, project_id, {"project_id": project_id})


def list_all(tx: Tx, *, project_id: str | None = None) -> list[Network]:
    """Live networks by id; with a project, those its instances may use."""
    statement = _LIVE
    if project_id is not None:
        statement = statement.where(sa.or_(_N.project_id == project_id, _N.project_id.is_(None)))
    return rows.every(tx, Network, statement)


def list_addresses(tx: Tx, network_id: int) -> list[FixedIp]:
    """Every address of a network, in order."""
    statement = sa.select(*rows.columns(FixedIp, fixed_ips)).where(_F.network_id == network_id)
    return rows.every(tx, FixedIp, statement.order_by(_F.id))


def delete(tx: Tx, network_id: int) -> None:
    """Withdraw a network and drop its pool; RowInUseError while an instance holds an address of it.

    The transaction has to end with that error: part of the pool is gone by then.
    """
    if not rows.soft_delete(tx, networks, network_id):
        raise RowNotFoundError("network", network_id)
    # Deleting only free rows waits for claims under way, so the count that follows misses none of them.
    tx.execute(sa.delete(fixed_ips).where(_F.network_id == network_id, _F.instance_id.is_(None)))
    held = tx.execute(sa.select(sa.func.count()).where(_F.network_id == network_id)).scalar_one()
    if held:
        raise RowInUseError("network", network_id, f"{held} addresses of instances")


_POOL = _F.network_id == sa.bindparam("network_id")


def _candidate(owner: sa.ColumnElement[int], *where: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Rows of the pool; `owner` says whose they are and orders them."""
    facts = (_F.id, _F.network_id, _F.address, _F.mac_address)
    return sa.select(owner.label("owner"), *facts).where(*where)


def _claim_statement(candidates: sa.Select[Any] | sa.CompoundSelect[Any]) -> sa.Select[Any]:
    """The network, and beside it the best candidate, if any."""
    pick = candidates.subquery("pick")
    return (
        sa.select(*rows.columns(Network, networks), pick.c.owner, pick.c.id.label("ip_id"), pick.c.address)
        .add_columns(pick.c.mac_address)
        .select_from(networks.outerjoin(pick, pick.c.network_id == _N.id))
        .where(_N.id == sa.bindparam("network_id"), _N.deleted == sa.false())
        .order_by(pick.c.owner.desc())
        .limit(1)
    )


_FREE = (_F.reserved == sa.false(), _F.instance_id.is_(None))
# Of an instance's few addresses that of the network: the sum keeps SQLite from looking through all of the network's.
_ITS = (_F.instance_id == sa.bindparam("instance_id"), _F.network_id + 0 == sa.bindparam("network_id"))
_OWN = _candidate(sa.literal_column("1"), *_ITS).limit(1).subquery("own")


def _claim_any(*order: sa.ColumnElement[int], hint: str = "") -> sa.Select[Any]:
    """The statement that finds the address an instance holds, and locks a free one.

    The lock is taken inside a derived table of one row: around the join it would lock the network as well, and others
    would skip that and find nothing. The row must come out of ix_fixed_ips_free already in order: a sort, or a walk
    along the primary key, reads every address there is, and on MariaDB locks it.
    """
    free = _candidate(sa.literal_column("0"), _POOL, *_FREE).order_by(*order).limit(1).with_for_update(skip_locked=True)
    if hint:
        free = free.with_hint(fixed_ips, hint)
    return _claim_statement(sa.union_all(sa.select(*_OWN.c), sa.select(*free.subquery("free").c)))


# PostgreSQL sees the index's order only when the NULL column is named, MariaDB only when it is not.
_CLAIM = Prepared(_claim_any(_F.instance_id, _F.id))
_CLAIM_MYSQL = Prepared(_claim_any(_F.id, hint="FORCE INDEX (ix_fixed_ips_free)"))
_STANDING = sa.case(
    (_F.reserved, 2), (_F.instance_id == sa.bindparam("instance_id"), 1), (_F.instance_id.is_(None), 0), else_=3
)
_CLAIM_EXACT = Prepared(_claim_statement(_candidate(_STANDING, _POOL, _F.address == sa.bindparam("address"))))
_TAKE = Prepared(
    sa.update(fixed_ips)
    .where(_F.id == sa.bindparam("ip_id"), *_FREE)
    .values(instance_id=sa.bindparam("taker"), mac_address=sa.bindparam("mac"), updated_at=utcnow())
)
_WANTED: sa.BindParameter[int] = sa.bindparam("in_network")
_free, _held_here = fixed_ips.alias("free").c, fixed_ips.alias("held").c
_BEST = (
    sa.select(_free.id)
    .where(_free.network_id == _WANTED, _free.reserved == sa.false(), _free.instance_id.is_(None))
    .order_by(_free.instance_id, _free.id)
    .limit(1)
    .with_for_update(skip_locked=True)
)
_AT_ONCE = Prepared(
    sa.update(fixed_ips)
    .where(
        _F.id == _BEST.scalar_subquery(),
        _N.id == _WANTED,
        _N.deleted == sa.false(),
        ~sa.exists().where(_held_here.instance_id == sa.bindparam("taker"), _held_here.network_id == _WANTED),
    )
    .values(instance_id=sa.bindparam("taker"), mac_address=sa.bindparam("mac"), updated_at=utcnow())
    .returning(*rows.columns(Network, networks), _F.address)
)
_RELEASE = Prepared(
    sa.update(fixed_ips)
    .where(_F.instance_id == sa.bindparam("holder"))
    .values(instance_id=None, mac_address=None, leased=False, updated_at=utcnow())
)


def claim(tx: Tx, network_id: int, instance_id: int, mac: str) -> ClaimedAddress:
    """Give an instance an address of a network, or return the one that it holds there already.

    Two statements (one when it holds one already); any number may race. AddressPoolEmptyError when none is free;
    what a claim under way holds is not free.
    """
    statement = _CLAIM_MYSQL if tx.dialect.name in {"mysql", "mariadb"} else _CLAIM
    found = statement.first(tx, {"network_id": network_id, "instance_id": instance_id})
    if found is None:
        raise RowNotFoundError("network", network_id)
    network = Network(*found[:_WIDTH])
    if found.owner is None:
        raise AddressPoolEmptyError(network.label)
    if found.owner == 1:
        return ClaimedAddress(network, found.address, found.mac_address)
    if not _take(tx, found.ip_id, instance_id, mac):
        raise AddressPoolEmptyError(network.label)
    return ClaimedAddress(network, found.address, mac)


def claim_at_once(tx: Tx, network_id: int, instance_id: int, mac: str) -> ClaimedAddress | None:
    """`claim` in one statement, which may commit itself: on PostgreSQL alone.

    None, and nothing done, when there is more to it: the instance has one, none is free, there is no such network.
    """
    found = _AT_ONCE.first(tx, {"in_network": network_id, "taker": instance_id, "mac": mac})
    return None if found is None else ClaimedAddress(Network(*found[:_WIDTH]), found[_WIDTH], mac)


def claim_exact(tx: Tx, network_id: int, instance_id: int, mac: str, address: str) -> ClaimedAddress:
    """Give an instance this very address, or return it when the instance holds it already.

    AddressUnavailableError when it is reserved, held by another instance, or not of the network.
    """
    key = {"network_id": network_id, "instance_id": instance_id, "address": address}
    found = _CLAIM_EXACT.first(tx, key)
    if found is None:
        raise RowNotFoundError("network", network_id)
    network = Network(*found[:_WIDTH])
    if found.ip_id is None:
        raise AddressUnavailableError(network.label, address, "not in its range")
    if found.owner == 1:
        return ClaimedAddress(network, address, found.mac_address)
    if found.owner == 2:
        raise AddressUnavailableError(network.label, address, "reserved")
    if found.owner == 3 or not _take(tx, found.ip_id, instance_id, mac):
        raise AddressUnavailableError(network.label, address, "held by another instance")
    return ClaimedAddress(network, address, mac)


def release(tx: Tx, instance_id: int) -> int:
    """Give back every address of an instance; returns how many there were."""
    return _RELEASE.change(tx, {"holder": instance_id})


_HELD = (
    sa.select(_F.instance_id, _F.address, _F.mac_address, *rows.columns(Network, networks))
    .join_from(fixed_ips, networks, _N.id == _F.network_id)
    .order_by(_F.instance_id, _F.id)
)
_HELD_BY = _HELD.where(_F.instance_id.in_(sa.bindparam("instance_ids", expanding=True)))
_HELD_ON = _HELD.join(instances, instances.c.id == _F.instance_id).where(
    instances.c.host == sa.bindparam("host"), instances.c.deleted == sa.false()
)


def addresses_of(tx: Tx, instance_ids: Collection[int]) -> list[HeldAddress]:
    """The addresses of these instances, by instance: one statement."""
    if not instance_ids:
        return []
    return _held(tx.execute(_HELD_BY, {"instance_ids": list(instance_ids)}))


def addresses_on(tx: Tx, host: str) -> list[HeldAddress]:
    """The addresses of every live instance of a host, by instance: one statement."""
    return _held(tx.execute(_HELD_ON, {"host": host}))


def _held(found: Iterable[sa.Row[Any]]) -> list[HeldAddress]:
    seen: dict[int, Network] = {}
    held = []
    for row in found:
        network = seen.get(row.id) or seen.setdefault(row.id, Network(*tuple(row)[3:]))
        held.append(HeldAddress(row.instance_id, network, row.address, row.mac_address))
    return held


def _take(tx: Tx, ip_id: int, instance_id: int, mac: str) -> bool:
    return _TAKE.change(tx, {"ip_id": ip_id, "taker": instance_id, "mac": mac}) == 1


def _block(cidr: str) -> ipaddress.IPv4Network:
    try:
        block = ipaddress.IPv4Network(cidr)
    except ValueError as exc:
        raise InvalidNetworkError(f"network address {cidr}: {exc}") from exc
    if not _LARGEST_PREFIX <= block.prefixlen <= _SMALLEST_PREFIX:
        raise InvalidNetworkError(
            f"network address {cidr}: a network has a prefix of /{_LARGEST_PREFIX} to /{_SMALLEST_PREFIX}"
        )
    return block


def _require_inside(block: ipaddress.IPv4Network, addresses: Iterable[str]) -> None:
    for address in addresses:
        try:
            inside = ipaddress.IPv4Address(address) in block
        except ValueError as exc:
            raise InvalidNetworkError(f"address {address}: {exc}") from exc
        if not inside:
            raise InvalidNetworkError(f"address {address} is outside {block}")


def _fill(tx: Tx, network_id: int, addresses: Iterable[str], kept: Collection[str]) -> None:
    pool = [{"network_id": network_id, "address": each, "reserved": each in kept} for each in addresses]
    for start in range(0, len(pool), _CHUNK):
        rows.insert_many(tx, fixed_ips, pool[start : start + _CHUNK])
