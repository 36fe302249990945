"""The journal: one row per accepted operation; the row is the work order, a message only rings for it.

State: requested -> running -> done | failed | aborted. `step` is the RPC verb that the next (or running) leg of the
operation is; `host` is whose turn it is; `owner` is the start id of the daemon that runs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from db import rows
from db.errors import RowNotFoundError
from db.models import instance_actions as journal
from db.models import instances, services
from db.prepared import Prepared
from db.session import Tx, utcnow

REQUESTED, RUNNING, DONE, FAILED, ABORTED = "requested", "running", "done", "failed", "aborted"
OPEN = (REQUESTED, RUNNING)


@dataclass(frozen=True, slots=True)
class Action:
    """One journal row. args: JSON text, secrets sealed; error: what the user may read; traceback: operators only."""

    id: int
    instance_id: int
    action: str
    step: str
    progress: str | None
    request_id: str
    user_id: str
    project_id: str
    args: str
    host: str | None
    state: str
    attempt: int
    owner: str | None
    error: str | None
    traceback: str | None
    requested_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    deadline: datetime | None


_ALL = sa.select(*rows.columns(Action, journal))
_BY_ID = Prepared(_ALL.where(journal.c.id == sa.bindparam("key")))


def create(tx: Tx, values: Mapping[str, Any]) -> int:
    """Write an order and return its id; DuplicateRowError when its message_id was seen before."""
    return rows.insert(tx, journal, dict(values))


def seconds_from_now(tx: Tx, seconds: float) -> Any:
    """An SQL expression: the database's clock plus `seconds`, for deadlines."""
    return _later(tx.dialect.name, seconds)


@lru_cache(64)
def _later(dialect: str, seconds: float) -> Any:
    if dialect == "sqlite":
        return sa.func.strftime("%Y-%m-%d %H:%M:%f000", "now", f"{seconds:+.3f} seconds", type_=sa.DateTime())
    if dialect == "postgresql":
        return utcnow() + sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)
    return sa.func.timestampadd(sa.text("MICROSECOND"), int(seconds * 1e6), utcnow(), type_=sa.DateTime())


def get(tx: Tx, action_id: int) -> Action:
    """The row; RowNotFoundError when there is none."""
    return rows.one(tx, Action, _BY_ID, "action", action_id, {"key": action_id})


_CLAIM = Prepared(
    sa.update(journal)
    .where(
        journal.c.id == sa.bindparam("key"),
        journal.c.instance_id == sa.bindparam("its_instance"),
        journal.c.step == sa.bindparam("its_step"),
        journal.c.state == REQUESTED,
        sa.or_(journal.c.host == sa.bindparam("here"), journal.c.host.is_(None)),
    )
    .values(
        state=RUNNING,
        owner=sa.bindparam("taker"),
        host=sa.bindparam("here"),
        attempt=journal.c.attempt + 1,
        started_at=sa.func.coalesce(journal.c.started_at, utcnow()),
    )
)
_HELD = (
    journal.c.id == sa.bindparam("key"),
    journal.c.state == RUNNING,
    journal.c.owner == sa.bindparam("holder"),
)
_FINISH = sa.update(journal).where(*_HELD).values(finished_at=utcnow())
_ABORT = Prepared(
    sa.update(journal)
    .where(
        journal.c.instance_id == sa.bindparam("its_instance"),
        sa.or_(*(journal.c.state == state for state in OPEN)),
        journal.c.id != sa.bindparam("kept"),
    )
    .values(state=ABORTED, error=sa.bindparam("why"), finished_at=utcnow())
)
_IS_HELD = Prepared(
    sa.select(journal.c.id).where(*_HELD, journal.c.attempt == sa.bindparam("its_attempt")).with_for_update()
)


def claim(tx: Tx, action_id: int, instance_id: int, step: str, host: str, owner: str) -> bool:
    """Take a requested order for this daemon; False when it was taken before, is over, or is not this host's turn."""
    keys = {"key": action_id, "its_instance": instance_id, "its_step": step, "here": host, "taker": owner}
    return _CLAIM.change(tx, keys) == 1


def adopt(tx: Tx, seen: Action, owner: str) -> bool:
    """Take over a running order as it was `seen`, because nobody runs it; False when it moved on since."""
    same = journal.c.owner.is_(None) if seen.owner is None else journal.c.owner == seen.owner
    taken = tx.execute(
        sa.update(journal)
        .where(journal.c.id == seen.id, journal.c.state == RUNNING, journal.c.attempt == seen.attempt, same)
        .values(owner=owner, attempt=journal.c.attempt + 1)
    )
    return bool(taken.rowcount == 1)


def set_progress(tx: Tx, action_id: int, owner: str, progress: str) -> bool:
    """Say how far a running order is; False when it is not `owner`'s any more (aborted or taken over)."""
    done = tx.execute(
        sa.update(journal)
        .where(journal.c.id == action_id, journal.c.state == RUNNING, journal.c.owner == owner)
        .values(progress=progress[:255])
    )
    return bool(done.rowcount == 1)


def set_args(tx: Tx, action_id: int, owner: str, args: str) -> bool:
    """Write other arguments into a running order; False when it is not `owner`'s any more."""
    mine = sa.update(journal).where(journal.c.id == action_id, journal.c.state == RUNNING, journal.c.owner == owner)
    return bool(tx.execute(mine.values(args=args)).rowcount == 1)


def is_held(tx: Tx, action_id: int, owner: str, attempt: int) -> bool:
    """True while `owner` runs that attempt of an order; the row is locked until the transaction ends."""
    keys = {"key": action_id, "holder": owner, "its_attempt": attempt}
    return _IS_HELD.first(tx, keys) is not None


def redirect(tx: Tx, seen: Action, *, step: str, host: str, args: str, deadline_s: float) -> bool:
    """Give an order, still as it was `seen`, to another host with another step; False when it moved on."""
    leg = {"step": step, "host": host, "args": args, "deadline": seconds_from_now(tx, deadline_s)}
    return _change_seen(tx, seen, {"state": REQUESTED, "owner": None, "progress": None, **leg})


def hand_over(tx: Tx, action_id: int, owner: str, *, step: str, host: str | None, args: str) -> bool:
    """Put a running order back as requested, its next leg `step` being `host`'s turn; False when not `owner`'s."""
    done = tx.execute(
        sa.update(journal)
        .where(journal.c.id == action_id, journal.c.state == RUNNING, journal.c.owner == owner)
        .values(state=REQUESTED, step=step, host=host, owner=None, args=args, progress=None)
    )
    return bool(done.rowcount == 1)


def finish(
    tx: Tx, action_id: int, owner: str, state: str, *, error: str | None = None, traceback: str | None = None
) -> bool:
    """End a running order as done, failed or aborted; False when it is not `owner`'s any more."""
    changes = {"state": state, "error": error, "traceback": traceback}
    return rows.change(tx, _FINISH, changes, key=action_id, holder=owner) == 1


def fail_seen(tx: Tx, seen: Action, error: str) -> bool:
    """End an order that is still as it was `seen`, because nobody runs it; False when it moved on since."""
    return _change_seen(tx, seen, {"state": FAILED, "error": error, "finished_at": utcnow()})


def finish_seen(tx: Tx, seen: Action, words: str) -> bool:
    """End an order that is still as it was `seen` as done, saying how; False when it moved on since."""
    return _change_seen(tx, seen, {"state": DONE, "progress": words[:255], "finished_at": utcnow()})


def _change_seen(tx: Tx, seen: Action, changes: Mapping[str, Any]) -> bool:
    same = (journal.c.id == seen.id, journal.c.state == seen.state, journal.c.attempt == seen.attempt)
    return bool(tx.execute(sa.update(journal).where(*same).values(**changes)).rowcount == 1)


def abort_open(tx: Tx, instance_id: int, reason: str, *, keep: int | None = None) -> int:
    """End every open order of an instance but `keep`, because a delete outranks it; how many there were."""
    return _ABORT.change(tx, {"its_instance": instance_id, "why": reason, "kept": keep or -1})


def waiting_longer_than(tx: Tx, host: str, age_s: float) -> list[Action]:
    """Requested orders of a host whose bell rang at least `age_s` ago, and running ones of any age."""
    limit = seconds_from_now(tx, -age_s)
    statement = _ALL.where(
        journal.c.host == host,
        sa.or_(
            journal.c.state == RUNNING,
            sa.and_(journal.c.state == REQUESTED, journal.c.requested_at <= limit),
        ),
    )
    return rows.every(tx, Action, statement.order_by(journal.c.id))


def expired_requests(tx: Tx) -> list[Action]:
    """Requested orders of any host whose deadline has passed."""
    statement = _ALL.where(journal.c.state == REQUESTED, journal.c.deadline < utcnow())
    return rows.every(tx, Action, statement.order_by(journal.c.id))


def expired_running(tx: Tx, host: str) -> list[int]:
    """Ids of a host's running orders whose deadline has passed."""
    found = tx.execute(
        sa.select(journal.c.id).where(journal.c.host == host, journal.c.state == RUNNING, journal.c.deadline < utcnow())
    )
    return [row.id for row in found]


def expired_on_dead_hosts(tx: Tx, down_time_s: float) -> list[Action]:
    """Running orders whose deadline has passed on hosts whose daemon is silent for longer than `down_time_s`."""
    alive = sa.select(services.c.host).where(
        services.c.deleted == sa.false(),
        services.c.binary == "nova-compute",
        services.c.heartbeat_at >= seconds_from_now(tx, -down_time_s),
    )
    statement = _ALL.where(journal.c.state == RUNNING, journal.c.deadline < utcnow(), journal.c.host.not_in(alive))
    return rows.every(tx, Action, statement.order_by(journal.c.id))


def list_for(tx: Tx, instance_id: int) -> list[Action]:
    """The history of an instance, oldest first."""
    return rows.every(tx, Action, _ALL.where(journal.c.instance_id == instance_id).order_by(journal.c.id))


def list_recent(tx: Tx, *, state: str | None = None, host: str | None = None, limit: int = 100) -> list[Action]:
    """The latest orders, newest first."""
    statement = _ALL
    if state is not None:
        statement = statement.where(journal.c.state == state)
    if host is not None:
        statement = statement.where(journal.c.host == host)
    return rows.every(tx, Action, statement.order_by(journal.c.id.desc()).limit(limit))


def lost_tasks(tx: Tx, host: str) -> list[int]:
    """Ids of instances of a host that are taken for a task although no open order holds them."""
    holding = sa.select(journal.c.instance_id).where(journal.c.state.in_(OPEN))
    found = tx.execute(
        sa.select(instances.c.id).where(
            instances.c.host == host,
            instances.c.deleted == sa.false(),
            instances.c.task_state.is_not(None),
            instances.c.id.not_in(holding),
        )
    )
    return [row.id for row in found]


def latest_open(tx: Tx, instance_id: int) -> Action:
    """The newest open order of an instance; RowNotFoundError when it has none."""
    statement = _ALL.where(journal.c.instance_id == instance_id, journal.c.state.in_(OPEN))
    found = rows.first(tx, Action, statement.order_by(journal.c.id.desc()).limit(1))
    if found is None:
        raise RowNotFoundError("open action of instance", instance_id)
    return found


def find_message(tx: Tx, message_id: str) -> Action | None:
    """The order that an op id was accepted as, or None."""
    return rows.first(tx, Action, _ALL.where(journal.c.message_id == message_id))


def all_by_message(tx: Tx, message_id: str) -> list[Action]:
    """Every order that was accepted under one op id, oldest first."""
    return rows.every(tx, Action, _ALL.where(journal.c.message_id == message_id).order_by(journal.c.id))
