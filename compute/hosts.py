"""Compute hosts as operators see them: totals, claims, ratios, instances, and which daemons are alive."""

from __future__ import annotations

from typing import Any

from compute.context import RequestContext
from compute.db_errors import translated
from compute.errors import HostNotFoundError
from compute.policy import require_admin
from db import compute_nodes, services
from db.compute_nodes import Candidate
from db.services import Liveness
from db.session import Database


def service_list(db: Database, *, host: str | None = None, binary: str | None = None) -> list[Liveness]:
    """The registered daemons with the age of their last report by the database's clock."""
    with translated():
        return db.query(services.list_all, host=host, binary=binary)


def is_alive(liveness: Liveness, service_down_time_s: float) -> bool:
    """True when a daemon reported less than `service_down_time_s` ago."""
    return liveness.age_s is not None and liveness.age_s < service_down_time_s


def set_disabled(
    db: Database, context: RequestContext, host: str, binary: str, *, disabled: bool, reason: str | None = None
) -> None:
    """Take a host's service out of scheduling, or put it back."""
    require_admin(context, "service enable/disable")
    with translated():
        if not db.run(services.set_disabled, host, binary, disabled, reason):
            raise HostNotFoundError(f"no service {binary!r:.60} on host {host!r:.60}")


def require(db: Database, host: str) -> None:
    """Raise HostNotFoundError unless a compute daemon ever registered for `host`."""
    if not service_list(db, host=host, binary="nova-compute"):
        raise HostNotFoundError(f"no compute host {host!r:.60}")


def get_all(db: Database) -> list[Candidate]:
    """Every host that ever reported what it has."""
    with translated():
        return db.query(compute_nodes.candidates)


def get(db: Database, host: str) -> Candidate:
    """One host; HostNotFoundError when it never reported."""
    for candidate in get_all(db):
        if candidate.node.host == host:
            return candidate
    raise HostNotFoundError(f"no compute host {host!r:.60}")


def describe_resource(db: Database, host: str) -> dict[str, Any]:
    """What 2011.2's show_host_resources answered: a host's totals and claims, and each project's share."""
    node = get(db, host).node
    names = ("vcpus", "memory_mb", "local_gb", "vcpus_used", "memory_mb_used", "local_gb_used")
    with translated():
        usage = db.query(compute_nodes.usage_by_project, host)
    return {"resource": {name: getattr(node, name) for name in names}, "usage": usage}
