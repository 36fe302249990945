"""Orders that wait for a scheduler: requested, and nobody's turn yet."""

from __future__ import annotations

import sqlalchemy as sa

from db import rows
from db.actions import FAILED, REQUESTED, Action, seconds_from_now
from db.models import instance_actions as journal
from db.session import Tx, utcnow

_WAITING = (journal.c.state == REQUESTED, journal.c.host.is_(None))


def waiting(tx: Tx, action: str, age_s: float = 0.0) -> list[Action]:
    """Host-less orders for `action` that were accepted at least `age_s` ago, oldest first."""
    limit = seconds_from_now(tx, -age_s)
    statement = sa.select(*rows.columns(Action, journal)).where(
        *_WAITING, journal.c.action == action, journal.c.requested_at <= limit
    )
    return rows.every(tx, Action, statement.order_by(journal.c.id))


def assign(tx: Tx, action_id: int, host: str) -> bool:
    """Make a waiting order `host`'s turn; False when another scheduler did, or it is over."""
    done = tx.execute(sa.update(journal).where(journal.c.id == action_id, *_WAITING).values(host=host, progress=None))
    return bool(done.rowcount == 1)


def keep_waiting(tx: Tx, action_id: int, words: str) -> bool:
    """Say what a waiting order waits for; False when it waits no more."""
    statement = sa.update(journal).where(journal.c.id == action_id, *_WAITING)
    return bool(tx.execute(statement.values(progress=words[:255])).rowcount == 1)


def fail(tx: Tx, action_id: int, error: str) -> bool:
    """End a waiting order as failed; False when another scheduler placed it, or it is over."""
    ended = {"state": FAILED, "error": error, "finished_at": utcnow()}
    done = tx.execute(sa.update(journal).where(journal.c.id == action_id, *_WAITING).values(**ended))
    return bool(done.rowcount == 1)
