"""Services: who serves which topic on which host, and whether it is alive by the database's clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from db import rows
from db.actions import seconds_from_now
from db.models import compute_nodes, services
from db.session import Tx, utcnow


@dataclass(frozen=True, slots=True)
class Service:
    """One registered daemon. compute_id: its identity on disk; owner: its latest start; machine: where that was."""

    id: int
    host: str
    binary: str
    topic: str
    report_count: int
    disabled: bool
    disabled_reason: str | None
    availability_zone: str
    compute_id: str | None
    owner: str | None
    machine: str | None
    version: str | None
    heartbeat_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Liveness:
    """A service and how long ago, in seconds of the database's clock, it last reported (None: never)."""

    service: Service
    age_s: float | None


_ALL = rows.select_live(Service, services)


def find(tx: Tx, host: str, binary: str) -> Service | None:
    """The service row of a host, or None."""
    return rows.first(tx, Service, _ALL.where(services.c.host == host, services.c.binary == binary))


def by_compute_id(tx: Tx, compute_id: str) -> Service | None:
    """The service row that carries an identity, or None."""
    return rows.first(tx, Service, _ALL.where(services.c.compute_id == compute_id))


def create(tx: Tx, values: Mapping[str, Any]) -> int:
    """Register a service and return its id; DuplicateRowError when the host or identity is taken."""
    return rows.insert(tx, services, dict(values))


def take_over(tx: Tx, service_id: int, owner: str, **changes: Any) -> None:
    """Write a new start into the row: from here on only `owner`'s heartbeats count."""
    tx.execute(
        sa.update(services)
        .where(services.c.id == service_id)
        .values(owner=owner, heartbeat_at=utcnow(), updated_at=utcnow(), **changes)
    )


_HEARTBEAT = (
    sa.update(services)
    .where(services.c.id == sa.bindparam("service_id"), services.c.owner == sa.bindparam("start_id"))
    .values(report_count=services.c.report_count + 1, heartbeat_at=utcnow(), updated_at=utcnow())
)


def heartbeat(tx: Tx, service_id: int, owner: str) -> bool:
    """Say that `owner` is alive; False when another start took the row over or it is gone."""
    return bool(tx.execute(_HEARTBEAT, {"service_id": service_id, "start_id": owner}).rowcount == 1)


def sign_off(tx: Tx, service_id: int, owner: str) -> None:
    """Clear the heartbeat of a clean stop, so that schedulers see it at once."""
    tx.execute(
        sa.update(services)
        .where(services.c.id == service_id, services.c.owner == owner)
        .values(heartbeat_at=None, updated_at=utcnow())
    )


def list_all(tx: Tx, *, host: str | None = None, binary: str | None = None) -> list[Liveness]:
    """Services with the age of their last report."""
    statement = sa.select(*rows.columns(Service, services), utcnow().label("now")).where(
        services.c.deleted == sa.false()
    )
    if host is not None:
        statement = statement.where(services.c.host == host)
    if binary is not None:
        statement = statement.where(services.c.binary == binary)
    return [_liveness(found) for found in tx.execute(statement.order_by(services.c.host, services.c.binary))]


def silent(tx: Tx, binary: str, down_time_s: float) -> list[str]:
    """Hosts whose daemon has not reported for that long, or has signed off."""
    late = services.c.heartbeat_at < seconds_from_now(tx, -down_time_s)
    found = tx.execute(
        sa.select(services.c.host).where(
            services.c.deleted == sa.false(),
            services.c.binary == binary,
            sa.or_(services.c.heartbeat_at.is_(None), late),
        )
    )
    return [row.host for row in found]


def _liveness(found: Any) -> Liveness:
    service = Service(*found[:-1])
    if service.heartbeat_at is None:
        return Liveness(service, None)
    return Liveness(service, (found.now - service.heartbeat_at).total_seconds())


def set_disabled(tx: Tx, host: str, binary: str, disabled: bool, reason: str | None = None) -> bool:
    """Take a service out of scheduling or put it back; False when there is no such service."""
    done = tx.execute(
        sa.update(services)
        .where(services.c.host == host, services.c.binary == binary, services.c.deleted == sa.false())
        .values(disabled=disabled, disabled_reason=reason, updated_at=utcnow())
    )
    return bool(done.rowcount == 1)


def destroy(tx: Tx, service_id: int) -> None:
    """Remove a service and its compute node for good (2011.2's Service.kill)."""
    tx.execute(sa.delete(compute_nodes).where(compute_nodes.c.service_id == service_id))
    tx.execute(sa.delete(services).where(services.c.id == service_id))
