"""Instance types (flavors): how much of a host an instance gets."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from db import rows
from db.errors import RowInUseError, RowNotFoundError
from db.models import instance_types
from db.session import Tx


@dataclass(frozen=True, slots=True)
class InstanceType:
    """One flavor; `swap` is in MB, as it was in 2011.2; ephemeral_gb of its local_gb are a second, empty disk."""

    id: int
    name: str
    flavorid: str
    memory_mb: int
    vcpus: int
    local_gb: int
    swap: int
    ephemeral_gb: int
    rxtx_quota: int
    rxtx_cap: int
    deleted: bool


_T = instance_types.c
_ALL = sa.select(*rows.columns(InstanceType, instance_types)).order_by(_T.id)
_LIVE = rows.select_live(InstanceType, instance_types).order_by(_T.id)
_BY_ID = _ALL.where(_T.id == sa.bindparam("type_id"))
_BY_KEY = (
    rows.select_live(InstanceType, instance_types)
    .where(sa.or_(_T.name == sa.bindparam("key"), _T.flavorid == sa.bindparam("key"), _T.id == sa.bindparam("type_id")))
    .order_by(sa.case((_T.name == sa.bindparam("key"), 0), (_T.flavorid == sa.bindparam("key"), 1), else_=2))
    .limit(1)
)


def create(
    tx: Tx,
    *,
    name: str,
    flavorid: str,
    memory_mb: int,
    vcpus: int,
    local_gb: int,
    swap: int = 0,
    ephemeral_gb: int = 0,
    rxtx_quota: int = 0,
    rxtx_cap: int = 0,
) -> int:
    """Add a type and return its id; the name and the flavorid must be free among live types."""
    values = {
        "name": name,
        "flavorid": flavorid,
        "memory_mb": memory_mb,
        "vcpus": vcpus,
        "local_gb": local_gb,
        "swap": swap,
        "ephemeral_gb": ephemeral_gb,
        "rxtx_quota": rxtx_quota,
        "rxtx_cap": rxtx_cap,
    }
    return rows.insert(tx, instance_types, values)


def get(tx: Tx, type_id: int) -> InstanceType:
    """The type with this id, deleted or not: instances outlive their type."""
    return rows.one(tx, InstanceType, _BY_ID, "instance type", type_id, {"type_id": type_id})


def get_by_name_or_flavorid(tx: Tx, key: str | int) -> InstanceType:
    """The live type that `key` means: as a name first, then as a flavorid, then as an id."""
    wanted = {"key": str(key), "type_id": rows.row_id(key)}
    return rows.one(tx, InstanceType, _BY_KEY, "instance type", key, wanted)


def list_all(tx: Tx, *, inactive: bool = False) -> list[InstanceType]:
    """The live types by id; with `inactive` the deleted ones too."""
    return rows.every(tx, InstanceType, _ALL if inactive else _LIVE)


def destroy(tx: Tx, name: str) -> None:
    """Withdraw the live type of this name: it can no longer be chosen, its instances keep it."""
    found = rows.one(tx, InstanceType, _LIVE.where(_T.name == name), "instance type", name)
    rows.soft_delete(tx, instance_types, found.id)


def purge(tx: Tx, name: str) -> None:
    """Forget every type of this name, live or deleted; RowInUseError while an instance's history refers to one."""
    try:
        gone = tx.execute(sa.delete(instance_types).where(_T.name == name)).rowcount
    except sa.exc.IntegrityError as exc:
        raise RowInUseError("instance type", name, "instances") from exc
    if not gone:
        raise RowNotFoundError("instance type", name)
