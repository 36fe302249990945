"""Server groups: instances that the scheduler keeps together or apart."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from db import rows
from db.errors import RowInUseError, RowNotFoundError
from db.models import instances, server_groups
from db.session import Tx


@dataclass(frozen=True, slots=True)
class ServerGroup:
    """One group; `policy` is affinity or anti-affinity."""

    id: int
    name: str
    project_id: str
    policy: str


_G, _I = server_groups.c, instances.c
_LIVE = rows.select_live(ServerGroup, server_groups).order_by(_G.id)
_BY_ID = _LIVE.where(_G.id == sa.bindparam("group_id"))
_HELD = _BY_ID.with_for_update()
_BY_KEY = (
    rows.select_live(ServerGroup, server_groups)
    .where(
        _G.project_id == sa.bindparam("project_id"),
        sa.or_(_G.name == sa.bindparam("key"), _G.id == sa.bindparam("group_id")),
    )
    .order_by(sa.case((_G.name == sa.bindparam("key"), 0), else_=1))
    .limit(1)
)
_MEMBERS = (
    sa.select(_I.id, _I.host)
    .where(_I.server_group_id == sa.bindparam("group_id"), _I.deleted == sa.false())
    .order_by(_I.id)
)


def create(tx: Tx, *, name: str, project_id: str, policy: str) -> int:
    """Add a group and return its id; the name must be free in the project."""
    return rows.insert(tx, server_groups, {"name": name, "project_id": project_id, "policy": policy})


def get(tx: Tx, group_id: int) -> ServerGroup:
    """The live group with this id."""
    return rows.one(tx, ServerGroup, _BY_ID, "server group", group_id, {"group_id": group_id})


def lock(tx: Tx, group_id: int) -> ServerGroup:
    """The live group, held until this transaction ends: whoever locks it meanwhile waits, then sees its new members."""
    return rows.one(tx, ServerGroup, _HELD, "server group", group_id, {"group_id": group_id})


def find(tx: Tx, project_id: str, key: str | int) -> ServerGroup:
    """The project's live group that `key` means: as a name first, then as an id."""
    wanted = {"project_id": project_id, "key": str(key), "group_id": rows.row_id(key)}
    return rows.one(tx, ServerGroup, _BY_KEY, "server group", key, wanted)


def list_all(tx: Tx, *, project_id: str | None = None) -> list[ServerGroup]:
    """Live groups by id, of one project when given."""
    return rows.every(tx, ServerGroup, _LIVE if project_id is None else _LIVE.where(_G.project_id == project_id))


def members(tx: Tx, group_id: int) -> dict[int, str | None]:
    """The live instances of a group and the host of each, None while it has none."""
    return {row[0]: row[1] for row in tx.execute(_MEMBERS, {"group_id": group_id})}


def delete(tx: Tx, group_id: int) -> None:
    """Withdraw a group; RowInUseError while a live instance is in it."""
    if members(tx, group_id):
        raise RowInUseError("server group", group_id, "instances")
    if not rows.soft_delete(tx, server_groups, group_id):
        raise RowNotFoundError("server group", group_id)
