"""Instances: rows, look-ups, and the compare-and-swaps by which a task takes and gives back an instance."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa

from db import rows
from db.errors import RowNotFoundError
from db.models import fixed_ips, instance_types, instances
from db.prepared import Prepared
from db.session import Tx, utcnow


@dataclass(frozen=True, slots=True, kw_only=False)
class Instance:
    """One instance as the database has it. memory_mb in MiB, local_gb in GiB, swap in MiB; fault is JSON or None.

    ephemeral_gb: how many of local_gb are a second disk.
    """

    id: int
    uuid: str
    display_name: str
    display_description: str | None
    hostname: str
    user_id: str
    project_id: str
    image_id: int | None
    kernel_id: int | None
    ramdisk_id: int | None
    instance_type_id: int
    memory_mb: int
    vcpus: int
    local_gb: int
    swap: int
    ephemeral_gb: int
    vm_state: str
    task_state: str | None
    power_state: int
    epoch: int
    host: str | None
    launched_on: str | None
    availability_zone: str | None
    reservation_id: str
    launch_index: int
    os_type: str | None
    key_name: str | None
    key_data: str | None
    user_data: str | None
    sealed_files: str | None
    sealed_password: str | None
    locked: bool
    fault: str | None
    server_group_id: int | None
    network_id: int | None
    scheduled_at: datetime | None
    launched_at: datetime | None
    terminated_at: datetime | None
    rescued_at: datetime | None
    created_at: datetime
    updated_at: datetime | None
    deleted: bool


@dataclass(frozen=True, slots=True)
class PowerRecord:
    """What the state sync needs of an instance."""

    id: int
    uuid: str
    vm_state: str
    task_state: str | None
    power_state: int


_ALL = sa.select(*rows.columns(Instance, instances))
_BY_ID = Prepared(_ALL.where(instances.c.id == sa.bindparam("key")))
_BY_IDS = _ALL.where(instances.c.id.in_(sa.bindparam("keys", expanding=True)))
_LIVE_BY_IDS = _BY_IDS.where(instances.c.deleted == sa.false())


def create(tx: Tx, values: Mapping[str, Any]) -> int:
    """Insert an instance and return its id."""
    return rows.insert(tx, instances, dict(values))


def get(tx: Tx, instance_id: int, *, read_deleted: bool = False) -> Instance:
    """The instance; RowNotFoundError when there is none, or it is deleted and `read_deleted` is false."""
    found = _BY_ID.first(tx, {"key": instance_id})
    if found is None or (found.deleted and not read_deleted):
        raise RowNotFoundError("instance", instance_id)
    return Instance(*found)


def find(tx: Tx, key: str, *, project_id: str | None = None, read_deleted: bool = False) -> list[Instance]:
    """Instances whose uuid or display name is `key`, newest first; within one project when given."""
    statement = _ALL.where(sa.or_(instances.c.uuid == key.lower(), instances.c.display_name == key))
    return rows.every(tx, Instance, _scoped(statement, project_id, read_deleted).order_by(instances.c.id.desc()))


def list_all(
    tx: Tx,
    *,
    project_id: str | None = None,
    host: str | None = None,
    reservation_id: str | None = None,
    fixed_ip: str | None = None,
    read_deleted: bool = False,
) -> list[Instance]:
    """Instances by id, narrowed by whatever is given."""
    statement = _scoped(_ALL, project_id, read_deleted)
    if host is not None:
        statement = statement.where(instances.c.host == host)
    if reservation_id is not None:
        statement = statement.where(instances.c.reservation_id == reservation_id)
    if fixed_ip is not None:
        holder = sa.select(fixed_ips.c.instance_id).where(fixed_ips.c.address == fixed_ip)
        statement = statement.where(instances.c.id.in_(holder))
    return rows.every(tx, Instance, statement.order_by(instances.c.id))


def _scoped(statement: sa.Select[Any], project_id: str | None, read_deleted: bool) -> sa.Select[Any]:
    if project_id is not None:
        statement = statement.where(instances.c.project_id == project_id)
    return statement if read_deleted else statement.where(instances.c.deleted == sa.false())


_POWER = sa.select(*rows.columns(PowerRecord, instances)).where(
    instances.c.host == sa.bindparam("host"), instances.c.deleted == sa.false()
)


def power_records(tx: Tx, host: str) -> list[PowerRecord]:
    """Every live instance of a host, for the state sync: one statement."""
    return [PowerRecord(*found) for found in tx.execute(_POWER, {"host": host})]


def clock(tx: Tx) -> datetime:
    """The database server's time, as `updated_at` has it."""
    now: datetime = tx.execute(sa.select(utcnow())).scalar_one()
    return now


_ID, _TASK = instances.c.id == sa.bindparam("key"), instances.c.task_state == sa.bindparam("task")
_LIVE = instances.c.deleted == sa.false()
_FREE = sa.or_(instances.c.task_state.is_(None), instances.c.task_state == sa.bindparam("replaces"))
_TOUCH = sa.update(instances).where(_ID).values(updated_at=utcnow())
_OVERRIDE = _TOUCH.where(
    _LIVE, sa.or_(instances.c.task_state.is_(None), instances.c.task_state != sa.bindparam("task"))
)
_HELD = _TOUCH.where(_TASK)


def begin_task(
    tx: Tx, instance_id: int, task: str, from_vm_states: Collection[str], *, also_locked: bool, replaces: str = ""
) -> bool:
    """Take a free instance for `task` if its vm_state allows; False when it is busy, locked, elsewhere or gone.

    replaces: a task_state that counts as free (`scheduling`, which a plain scheduler leaves).
    """
    statement = _begin(frozenset(from_vm_states), also_locked=also_locked)
    return rows.change(tx, statement, {"task_state": task}, key=instance_id, replaces=replaces) == 1


@cache
def _begin(vm_states: frozenset[str], *, also_locked: bool) -> sa.Update:
    """The states are part of it, so that it can be prepared; there are as many as there are tasks."""
    allowed = sa.or_(*(instances.c.vm_state == state for state in sorted(vm_states)))
    statement = _TOUCH.where(_LIVE, _FREE, allowed)
    return statement if also_locked else statement.where(instances.c.locked == sa.false())


def override_task(tx: Tx, instance_id: int, task: str, **changes: Any) -> bool:
    """Take an instance for `task` whatever runs on it, unless it is being `task`ed already; False otherwise."""
    return rows.change(tx, _OVERRIDE, {"task_state": task, **changes}, key=instance_id, task=task) == 1


def end_task(tx: Tx, instance_id: int, task: str, changes: Mapping[str, Any]) -> bool:
    """Give the instance back with `changes`, if it is still taken for `task`; False when another task took it."""
    return rows.change(tx, _HELD, {"task_state": None, **changes}, key=instance_id, task=task) == 1


def update(tx: Tx, instance_id: int, **changes: Any) -> None:
    """Write columns that no task guards (lock flag, names, host of a scheduling instance)."""
    rows.change(tx, _TOUCH, changes, key=instance_id)


def set_host(tx: Tx, instance_id: int, task: str, host: str | None, **changes: Any) -> bool:
    """Move the record of an instance taken for `task` to another host; False when the task changed."""
    return rows.change(tx, _HELD, {"host": host, **changes}, key=instance_id, task=task) == 1


def write_power(
    tx: Tx,
    seen: Collection[PowerRecord],
    host: str,
    seen_at: datetime,
    power_state: int,
    vm_state: str,
    **changes: Any,
) -> int:
    """Record one hypervisor fact for idle instances of `host` that are still as they were `seen`, all of them alike.

    One statement for all; how many were written. One that an operation had since `seen_at` is left alone, also when it
    looks the same again: the fact may be from the middle of it.
    """
    like = next(iter(seen))
    done = tx.execute(
        sa.update(instances)
        .where(
            instances.c.id.in_([record.id for record in seen]),
            instances.c.task_state.is_(None),
            instances.c.vm_state == like.vm_state,
            instances.c.power_state == like.power_state,
            instances.c.host == host,
            sa.or_(instances.c.updated_at.is_(None), instances.c.updated_at < seen_at),
        )
        .values(power_state=power_state, vm_state=vm_state, updated_at=utcnow(), **changes)
    )
    return int(done.rowcount)


def rescued_before(tx: Tx, host: str, age_s: float) -> list[int]:
    """Ids of idle instances of a host that have been in rescue for longer than `age_s` by the database's clock."""
    found = tx.execute(
        sa.select(instances.c.id, instances.c.rescued_at, utcnow().label("now")).where(
            instances.c.host == host,
            instances.c.deleted == sa.false(),
            instances.c.task_state.is_(None),
            instances.c.rescued_at.is_not(None),
        )
    )
    return [row.id for row in found if (row.now - row.rescued_at).total_seconds() > age_s]


def flavor_names(tx: Tx, ids: Collection[int]) -> dict[int, str]:
    """Flavor names by instance-type id, deleted ones too."""
    found = tx.execute(
        sa.select(instance_types.c.id, instance_types.c.name).where(instance_types.c.id.in_(list(set(ids))))
    )
    return {row.id: row.name for row in found}


def by_ids(tx: Tx, ids: Collection[int], *, read_deleted: bool = False) -> list[Instance]:
    """Instances by id, in no order."""
    if len(ids) == 1:
        found = rows.every(tx, Instance, _BY_ID, {"key": next(iter(ids))})
        return [row for row in found if read_deleted or not row.deleted]
    return rows.every(tx, Instance, _BY_IDS if read_deleted else _LIVE_BY_IDS, {"keys": list(ids)})


def by_uuids(tx: Tx, uuids: Collection[str]) -> dict[str, Instance]:
    """Instances by uuid, deleted ones too."""
    if not uuids:
        return {}
    found = rows.every(tx, Instance, _ALL.where(instances.c.uuid.in_(list(uuids))))
    return {row.uuid: row for row in found}
