"""Orders to remove what a host still has of an instance that was deleted without it, and deletes that wait for one."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from db import instances, rows
from db.actions import DONE, OPEN, REQUESTED, Action, seconds_from_now
from db.models import instance_actions as journal
from db.session import Tx, utcnow

CLEANING = "cleaning_up"
"""The action, and the step, of such an order: no task of the instance, which is no more."""

_ALL = sa.select(*rows.columns(Action, journal))
_OPEN_CLEANING = (journal.c.action == CLEANING, journal.c.state == REQUESTED)


def owe(tx: Tx, delete: Action, host: str) -> int:
    """Write the order for `host` that a delete leaves behind, and return its id. It waits for ever."""
    who = {"request_id": delete.request_id, "user_id": delete.user_id, "project_id": delete.project_id}
    what = {"instance_id": delete.instance_id, "action": CLEANING, "step": CLEANING, "args": "{}"}
    return rows.insert(tx, journal, {**what, **who, "host": host, "state": REQUESTED})


def is_last(tx: Tx, order: Action) -> bool:
    """True if no other host has still to clean up after this instance."""
    others = _ALL.where(journal.c.instance_id == order.instance_id, journal.c.id != order.id, *_OPEN_CLEANING)
    return tx.execute(others.limit(1)).first() is None


def finish(tx: Tx, order: Action, words: str | None = None) -> bool:
    """End such an order as done, saying how; False when it is over.

    Its instance's row is locked, so that one host is the last.
    """
    instances.update(tx, order.instance_id)
    ended = sa.update(journal).where(journal.c.id == order.id, *_OPEN_CLEANING)
    return bool(tx.execute(ended.values(state=DONE, progress=words, finished_at=utcnow())).rowcount == 1)


def owed(tx: Tx, host: str | None = None) -> list[Action]:
    """Every open order of this kind, of one host or all."""
    statement = _ALL.where(*_OPEN_CLEANING)
    if host is not None:
        statement = statement.where(journal.c.host == host)
    return rows.every(tx, Action, statement.order_by(journal.c.id))


def waiting_for(tx: Tx, hosts: Collection[str], delete: str, age_s: float) -> list[Action]:
    """Open orders for the action `delete` that wait for one of these hosts, accepted at least `age_s` ago."""
    statement = _ALL.where(
        journal.c.host.in_(list(hosts)),
        journal.c.state.in_(OPEN),
        journal.c.action == delete,
        journal.c.requested_at <= seconds_from_now(tx, -age_s),
    )
    return rows.every(tx, Action, statement.order_by(journal.c.id))
