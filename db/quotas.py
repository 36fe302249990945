"""Quotas: a project's limits where they differ from the configured ones, and what it uses."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from db import rows
from db.models import instances, quotas, volumes
from db.session import Tx, utcnow


@dataclass(frozen=True, slots=True)
class Usage:
    """What a project's live instances and volumes add up to."""

    instances: int
    cores: int
    ram_mb: int
    volumes: int
    gigabytes: int


_Q, _I, _V = quotas.c, instances.c, volumes.c
_LIMITS = sa.select(_Q.resource, _Q.hard_limit).where(_Q.project_id == sa.bindparam("project_id"))


def _total(column: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    return sa.func.coalesce(sa.func.sum(column), 0)


_COMPUTE = (
    sa.select(sa.func.count().label("n"), _total(_I.vcpus).label("cores"), _total(_I.memory_mb).label("ram_mb"))
    .where(_I.project_id == sa.bindparam("project_id"), _I.deleted == sa.false())
    .subquery("compute")
)
_STORAGE = (
    sa.select(sa.func.count().label("n"), _total(_V.size).label("gigabytes"))
    .where(_V.project_id == sa.bindparam("project_id"), _V.deleted == sa.false())
    .subquery("storage")
)
_USAGE = sa.select(
    *(_COMPUTE.c.n, _COMPUTE.c.cores, _COMPUTE.c.ram_mb, _STORAGE.c.n, _STORAGE.c.gigabytes)
).select_from(_COMPUTE.join(_STORAGE, sa.true()))


def get(tx: Tx, project_id: str) -> dict[str, int]:
    """The limits set for a project, by resource; a resource not named has its configured limit."""
    return {row[0]: row[1] for row in tx.execute(_LIMITS, {"project_id": project_id})}


def set_limit(tx: Tx, project_id: str, resource: str, hard_limit: int) -> None:
    """Set one limit; -1 means no limit."""
    statement = sa.update(quotas).where(_Q.project_id == project_id, _Q.resource == resource)
    done = tx.execute(statement.values(hard_limit=hard_limit, updated_at=utcnow()))
    if done.rowcount == 0:
        rows.insert(tx, quotas, {"project_id": project_id, "resource": resource, "hard_limit": hard_limit})


def delete(tx: Tx, project_id: str, resource: str | None = None) -> int:
    """Go back to the configured limit of one resource, or of all; returns how many limits were dropped."""
    statement = sa.delete(quotas).where(_Q.project_id == project_id)
    if resource is not None:
        statement = statement.where(_Q.resource == resource)
    return tx.execute(statement).rowcount


def usage(tx: Tx, project_id: str) -> Usage:
    """What a project uses now: one statement."""
    instances_, cores, ram_mb, volumes_, gigabytes = tx.execute(_USAGE, {"project_id": project_id}).one()
    # Sums come back as Decimal from some servers.
    return Usage(instances_, int(cores), int(ram_mb), volumes_, int(gigabytes))
