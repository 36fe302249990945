"""Server groups: instances that the scheduler puts on one host (affinity) or on different ones (anti-affinity)."""

from __future__ import annotations

from compute import valid
from compute.context import RequestContext
from compute.db_errors import translated
from compute.policy import project_filter
from db import server_groups
from db.server_groups import ServerGroup
from db.session import Database

POLICIES = ("affinity", "anti-affinity")


def create(db: Database, context: RequestContext, *, name: str, policy: str) -> ServerGroup:
    """Add a group to the caller's project. Raises InvalidInputError or DuplicateError."""
    values = {
        "name": valid.name("server group name", name),
        "project_id": context.project_id,
        "policy": valid.one_of("policy", policy, POLICIES),
    }
    with translated(duplicate=f"project {context.project_id} has a server group {name!r:.60} already"):
        return db.query(server_groups.get, db.run(server_groups.create, **values))


def get_all(db: Database, context: RequestContext) -> list[ServerGroup]:
    """The project's groups by id; every project's for an administrator."""
    with translated():
        return db.query(server_groups.list_all, project_id=project_filter(context))


def members(db: Database, group: ServerGroup) -> dict[int, str | None]:
    """The live instances of a group, and the host of each."""
    with translated():
        return db.query(server_groups.members, group.id)


def delete(db: Database, context: RequestContext, key: str) -> None:
    """Withdraw a group of the caller's project; InUseError while a live instance is in it."""
    with translated():
        group = db.query(server_groups.find, context.project_id, key)
        db.run(server_groups.delete, group.id)
