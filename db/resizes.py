"""Resizes and live migrations (table `migrations`): where an instance was, where it goes, and how far it got."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from db import rows
from db.models import migrations
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


_M = migrations.c
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
