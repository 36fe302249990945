"""Resizes and live migrations (table `migrations`): where an instance was, where it goes, and how far it got."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from db import rows
from db.models import instance_types, instances, migrations
from db.session import Tx, utcnow


@dataclass(frozen=True, slots=True)
class Resize:
    """One move of one instance; `kind` is resize or live-migration, `dest_host` the address of dest_compute."""

    id: int
    instance_id: int
    kind: str
    source_compute: str
    dest_compute: str
    dest_host: str | None
    old_flavor_id: int | None
    new_flavor_id: int | None
    old_vm_state: str | None
    status: str
    disk_info: str | None
    created_at: datetime
    updated_at: datetime | None


_M, _I = migrations.c, instances.c
SIZES = ("vcpus", "memory_mb", "local_gb")
RESIZING = ("pre-migrating", "migrating", "post-migrating")
LIVE_MIGRATING = ("accepted", "preparing", "running")
OPEN = (*RESIZING, *LIVE_MIGRATING, "finished")  # a move that still holds room on a second host
_LIVE = rows.select_live(Resize, migrations)
_BY_ID = _LIVE.where(_M.id == sa.bindparam("resize_id"))
_LATEST = _LIVE.where(_M.instance_id == sa.bindparam("instance_id")).order_by(_M.id.desc()).limit(1)
_LATEST_IN = (
    _LIVE.where(_M.instance_id == sa.bindparam("instance_id"), _M.status == sa.bindparam("wanted"))
    .order_by(_M.id.desc())
    .limit(1)
)


def create(
    tx: Tx, *, instance_id: int, kind: str, source_compute: str, dest_compute: str, status: str, **facts: Any
) -> int:
    """Record a move about to be made and return its id. `facts`: the other columns of Resize."""
    values = {"instance_id": instance_id, "kind": kind, "status": status}
    return rows.insert(
        tx, migrations, {**values, "source_compute": source_compute, "dest_compute": dest_compute, **facts}
    )


def get(tx: Tx, resize_id: int) -> Resize:
    """The record with this id."""
    return rows.one(tx, Resize, _BY_ID, "migration", resize_id, {"resize_id": resize_id})


def latest(tx: Tx, instance_id: int) -> Resize | None:
    """The newest move of an instance, whatever came of it."""
    return rows.first(tx, Resize, _LATEST, {"instance_id": instance_id})


def latest_finished(tx: Tx, instance_id: int) -> Resize | None:
    """The newest move that is `finished`: neither confirmed nor reverted yet."""
    return rows.first(tx, Resize, _LATEST_IN, {"instance_id": instance_id, "wanted": "finished"})


def list_all(
    tx: Tx, *, instance_id: int | None = None, host: str | None = None, statuses: Collection[str] = ()
) -> list[Resize]:
    """Moves by id, narrowed by instance, by host (source or destination) and by status."""
    statement = _LIVE.order_by(_M.id)
    if instance_id is not None:
        statement = statement.where(_M.instance_id == instance_id)
    if host is not None:
        statement = statement.where(sa.or_(_M.source_compute == host, _M.dest_compute == host))
    if statuses:
        statement = statement.where(_M.status.in_(list(statuses)))
    return rows.every(tx, Resize, statement)


def set_status(tx: Tx, resize_id: int, expected: str | Collection[str], status: str, **facts: Any) -> bool:
    """Move on from an expected status, writing `facts` along; False when it was in another."""
    allowed = [expected] if isinstance(expected, str) else list(expected)
    statement = sa.update(migrations).where(_M.id == resize_id, _M.deleted == sa.false(), _M.status.in_(allowed))
    return tx.execute(statement.values(status=status, updated_at=utcnow(), **facts)).rowcount == 1


@dataclass(frozen=True, slots=True)
class HeldClaim:
    """Room that a move holds on the host its instance is not recorded on."""

    move_id: int
    host: str
    vcpus: int
    memory_mb: int
    local_gb: int


_OLD, _NEW = instance_types.alias("old_type"), instance_types.alias("new_type")
_HELD = (
    sa.select(
        *(_M.id, _M.kind, _M.status, _M.source_compute, _M.dest_compute),
        *(sa.func.coalesce(_OLD.c[name], _I[name]).label(f"old_{name}") for name in SIZES),
        *(sa.func.coalesce(_NEW.c[name], _I[name]).label(f"new_{name}") for name in SIZES),
    )
    .select_from(
        migrations.join(instances, _I.id == _M.instance_id)
        .outerjoin(_OLD, _OLD.c.id == _M.old_flavor_id)
        .outerjoin(_NEW, _NEW.c.id == _M.new_flavor_id)
    )
    .where(_M.deleted == sa.false(), _M.status.in_(OPEN))
)
_HELD_ON = _HELD.where(
    _I.deleted == sa.false(), sa.or_(_M.source_compute == sa.bindparam("host"), _M.dest_compute == sa.bindparam("host"))
)
_HELD_FOR = _HELD.where(_M.instance_id == sa.bindparam("instance_id"))


def held_on(tx: Tx, host: str) -> list[HeldClaim]:
    """What moves of live instances hold on a host beside the instances recorded there: one statement."""
    return [claim for claim in map(_claim, tx.execute(_HELD_ON, {"host": host})) if claim.host == host]


def held_for(tx: Tx, instance_id: int) -> list[HeldClaim]:
    """What the open moves of one instance hold on hosts that it is not recorded on."""
    return [_claim(found) for found in tx.execute(_HELD_FOR, {"instance_id": instance_id})]


def _claim(found: sa.Row[Any]) -> HeldClaim:
    """A finished resize holds its old size on the source until it is confirmed; a move under way, its new one."""
    host, age = (found.source_compute, "old") if found.status == "finished" else (found.dest_compute, "new")
    return HeldClaim(found.id, host, *(int(found._mapping[f"{age}_{name}"]) for name in SIZES))
