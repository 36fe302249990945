"""Instance metadata: a user's own keys and values on an instance."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import sqlalchemy as sa

from db import rows
from db.models import instance_metadata
from db.session import Tx

_M = instance_metadata.c
_OF = (
    sa.select(_M.instance_id, _M.key, _M.value)
    .where(_M.instance_id.in_(sa.bindparam("instance_ids", expanding=True)))
    .order_by(_M.instance_id, _M.key)
)


def of_instances(tx: Tx, instance_ids: Collection[int]) -> dict[int, dict[str, str]]:
    """The metadata of each of these instances that has any: one statement."""
    found: dict[int, dict[str, str]] = {}
    if instance_ids:
        for instance_id, key, value in tx.execute(_OF, {"instance_ids": list(instance_ids)}):
            found.setdefault(instance_id, {})[key] = value
    return found


def get(tx: Tx, instance_id: int) -> dict[str, str]:
    """The metadata of one instance."""
    return of_instances(tx, [instance_id]).get(instance_id, {})


def create(tx: Tx, instance_ids: Collection[int], metadata: Mapping[str, str]) -> None:
    """Give new instances, which have none yet, this metadata: one statement."""
    values = [{"instance_id": each, "key": k, "value": v} for each in instance_ids for k, v in metadata.items()]
    rows.insert_many(tx, instance_metadata, values)


def update(tx: Tx, instance_id: int, metadata: Mapping[str, str]) -> None:
    """Add these keys to an instance, replacing the values of those that it has."""
    if metadata:
        tx.execute(sa.delete(instance_metadata).where(_M.instance_id == instance_id, _M.key.in_(list(metadata))))
        create(tx, [instance_id], metadata)


def delete(tx: Tx, instance_id: int, key: str) -> bool:
    """Forget one key; False when the instance did not have it."""
    done = tx.execute(sa.delete(instance_metadata).where(_M.instance_id == instance_id, _M.key == key))
    return done.rowcount == 1
