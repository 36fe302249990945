"""What can be seen to be wrong from the rows alone: look-ups of `nova-manage verify`, a statement a kind or host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from db import resizes, rows
from db.actions import OPEN
from db.cleaning import CLEANING
from db.models import compute_nodes, fixed_ips, instance_actions, instances, services, volume_attachments, volumes
from db.resizes import HeldClaim
from db.session import Tx, utcnow

_I, _J, _F, _A, _V, _N = (
    instances.c,
    instance_actions.c,
    fixed_ips.c,
    volume_attachments.c,
    volumes.c,
    compute_nodes.c,
)


@dataclass(frozen=True, slots=True)
class OverdueOrder:
    """An order that is open although its deadline has passed."""

    id: int
    instance_id: int
    action: str
    state: str
    host: str | None


@dataclass(frozen=True, slots=True)
class LostTask:
    """An instance that is taken for a task although no open order holds it."""

    id: int
    task_state: str
    host: str | None


@dataclass(frozen=True, slots=True)
class HeldAddress:
    """An address whose instance is deleted."""

    address: str
    instance_id: int
    host: str | None


@dataclass(frozen=True, slots=True)
class HeldVolume:
    """A live attachment to a deleted instance, or of a deleted volume."""

    volume_id: int
    instance_id: int
    state: str
    host: str | None


@dataclass(frozen=True, slots=True)
class OddVolume:
    """A volume that says it is attached while no attachment is, or the other way round; or one under way for ever."""

    id: int
    status: str
    host: str | None


@dataclass(frozen=True, slots=True)
class Claims:
    """What a host's node says is claimed, and what its live instances add up to (MiB, GiB)."""

    host: str
    vcpus_used: int
    memory_mb_used: int
    local_gb_used: int
    vcpus: int
    memory_mb: int
    local_gb: int


@dataclass(frozen=True, slots=True)
class HomelessInstance:
    """A live instance on a host that no daemon is registered for."""

    id: int
    host: str


def overdue_orders(tx: Tx) -> list[OverdueOrder]:
    """Open orders whose deadline has passed by the database's clock."""
    statement = sa.select(*rows.columns(OverdueOrder, instance_actions))
    return rows.every(tx, OverdueOrder, statement.where(_J.state.in_(OPEN), _J.deadline < utcnow()).order_by(_J.id))


def lost_tasks(tx: Tx) -> list[LostTask]:
    """Live instances with a task and no open order."""
    holding = sa.exists().where(_J.instance_id == _I.id, _J.state.in_(OPEN))
    statement = sa.select(*rows.columns(LostTask, instances))
    return rows.every(
        tx, LostTask, statement.where(_I.deleted == sa.false(), _I.task_state.is_not(None), ~holding).order_by(_I.id)
    )


_AWAITED = sa.exists().where(_J.instance_id == _I.id, _J.action == CLEANING, _J.state.in_(OPEN))


def held_addresses(tx: Tx) -> list[HeldAddress]:
    """Addresses of deleted instances, unless a host has still to remove what it has of them."""
    statement = sa.select(_F.address, _I.id, _I.host).join_from(fixed_ips, instances, _I.id == _F.instance_id)
    return rows.every(tx, HeldAddress, statement.where(_I.deleted == sa.true(), ~_AWAITED).order_by(_F.id))


def held_volumes(tx: Tx) -> list[HeldVolume]:
    """Live attachments one end of which is deleted, with the same exception."""
    statement = (
        sa.select(_A.volume_id, _A.instance_id, _A.state, _I.host)
        .join_from(volume_attachments, instances, _I.id == _A.instance_id)
        .join(volumes, _V.id == _A.volume_id)
        .where(_A.live == 1, sa.or_(sa.and_(_I.deleted == sa.true(), ~_AWAITED), _V.deleted == sa.true()))
    )
    return rows.every(tx, HeldVolume, statement.order_by(_A.id))


def odd_volumes(tx: Tx) -> list[OddVolume]:
    """Live volumes whose status and attachments disagree, and those that are being attached while nobody does it."""
    attached = sa.exists().where(_A.volume_id == _V.id, _A.live == 1)
    taken = _V.status.in_(["attaching", "in-use", "detaching"])
    under_way = _A.state.in_(["attaching", "detaching"])
    forgotten = sa.exists().where(
        *(_A.volume_id == _V.id, _A.live == 1, under_way),
        *(_I.id == _A.instance_id, _I.task_state.is_(None), _I.deleted == sa.false()),
    )
    statement = sa.select(*rows.columns(OddVolume, volumes)).where(
        _V.deleted == sa.false(),
        sa.or_(sa.and_(taken, ~attached), sa.and_(_V.status == "available", attached), forgotten),
    )
    return rows.every(tx, OddVolume, statement.order_by(_V.id))


def claims(tx: Tx) -> list[Claims]:
    """Each host's claims beside the sums over its live instances and what moves under way hold there."""
    sums = (
        sa.select(
            _I.host,
            sa.func.sum(_I.vcpus).label("vcpus"),
            sa.func.sum(_I.memory_mb).label("memory_mb"),
            sa.func.sum(_I.local_gb).label("local_gb"),
        )
        .where(_I.deleted == sa.false(), _I.host.is_not(None))
        .group_by(_I.host)
        .subquery("sums")
    )
    statement = (
        sa.select(_N.host, _N.vcpus_used, _N.memory_mb_used, _N.local_gb_used)
        .add_columns(*(sa.func.coalesce(sums.c[name], 0) for name in ("vcpus", "memory_mb", "local_gb")))
        .join_from(compute_nodes, sums, sums.c.host == _N.host, isouter=True)
        .where(_N.deleted == sa.false())
        .order_by(_N.host)
    )
    # Sums come back as Decimal from some servers.
    found = [Claims(host, *(int(number) for number in numbers)) for host, *numbers in tx.execute(statement)]
    return [_with_moves(one, resizes.held_on(tx, one.host)) for one in found]


def _with_moves(claims: Claims, moves: Sequence[HeldClaim]) -> Claims:
    return replace(
        claims,
        vcpus=claims.vcpus + sum(move.vcpus for move in moves),
        memory_mb=claims.memory_mb + sum(move.memory_mb for move in moves),
        local_gb=claims.local_gb + sum(move.local_gb for move in moves),
    )


def homeless(tx: Tx) -> list[HomelessInstance]:
    """Live instances whose host has no registered compute daemon."""
    registered = sa.exists().where(
        services.c.host == _I.host, services.c.topic == "compute", services.c.deleted == sa.false()
    )
    statement = sa.select(_I.id, _I.host).where(_I.deleted == sa.false(), _I.host.is_not(None), ~registered)
    return rows.every(tx, HomelessInstance, statement.order_by(_I.id))


def counts(tx: Tx, host: str) -> tuple[dict[str, int], dict[str, int]]:
    """How many instances of a host are in which vm_state, and how many of its open orders in which state."""
    live = sa.select(_I.vm_state, sa.func.count()).where(_I.host == host, _I.deleted == sa.false())
    orders = sa.select(_J.state, sa.func.count()).where(_J.host == host, _J.state.in_(OPEN))
    found = {state: int(count) for state, count in tx.execute(orders.group_by(_J.state))}
    states = {state: int(count) for state, count in tx.execute(live.group_by(_I.vm_state))}
    return states, {state: found.get(state, 0) for state in OPEN}


def instance_ids(tx: Tx, *, deleted: bool) -> list[int]:
    """Every instance of every host that is deleted, or is not."""
    return list(tx.execute(sa.select(_I.id).where(_I.deleted == (sa.true() if deleted else sa.false()))).scalars())
