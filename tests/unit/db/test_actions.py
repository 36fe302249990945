"""The journal: who may take, hand over and end an order is decided by the row, whoever comes second changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from db import actions, services
from db.actions import DONE, FAILED, REQUESTED, RUNNING
from db.errors import DuplicateRowError, RowNotFoundError
from db.models import services as service_table
from db.session import Database, Tx
from tests.unit.db.db_builders import an_instance


def an_order(tx: Tx, **changes: Any) -> int:
    """A requested pause of an instance of its own on host h1, which has ten minutes."""
    instance_id = changes.pop("instance_id", None) or an_instance(tx, host="h1", task_state="pausing")
    values = {"instance_id": instance_id, "action": "pausing", "step": "pause_instance", "request_id": "r"}
    values |= {"user_id": "ann", "project_id": "lab", "args": "{}", "host": "h1", "state": REQUESTED}
    return actions.create(tx, values | {"deadline": actions.seconds_from_now(tx, 600)} | changes)


def running(tx: Tx, owner: str = "start-1", **changes: Any) -> int:
    return an_order(tx, state=RUNNING, owner=owner, attempt=1, **changes)


def claim(tx: Tx, order: int, **changes: Any) -> bool:
    """Claim it as host h1 does."""
    instance_id = actions.get(tx, order).instance_id
    wanted = {"instance_id": instance_id, "step": "pause_instance", "host": "h1", "owner": "start-1"}
    return actions.claim(tx, order, **(wanted | changes))


def late(tx: Tx) -> Any:
    return actions.seconds_from_now(tx, -1)


def test_an_order_is_claimed_by_one(tx: Tx) -> None:
    order = an_order(tx)
    assert claim(tx, order)
    assert not claim(tx, order, owner="start-2")
    row = actions.get(tx, order)
    assert (row.state, row.owner, row.attempt, row.started_at is not None) == (RUNNING, "start-1", 1, True)


@pytest.mark.parametrize("wrong", [{"host": "h2"}, {"step": "stop_instance"}, {"instance_id": 999}])
def test_an_order_is_claimed_only_where_it_says(tx: Tx, wrong: dict[str, Any]) -> None:
    assert not claim(tx, an_order(tx), **wrong)


def test_an_order_of_no_host_is_anybodys(tx: Tx) -> None:
    order = an_order(tx, host=None)
    assert claim(tx, order, host="h7")
    assert actions.get(tx, order).host == "h7"


def test_a_message_that_was_seen_before_makes_no_second_order(database: Database) -> None:
    instance_id = database.run(an_instance)
    database.run(an_order, instance_id=instance_id, message_id="m")
    database.run(an_order, instance_id=instance_id, message_id="m", action="stopping")
    database.run(an_order, message_id="m")
    with pytest.raises(DuplicateRowError):
        database.run(an_order, instance_id=instance_id, message_id="m")


def test_an_abandoned_order_is_adopted_by_one(tx: Tx) -> None:
    seen = actions.get(tx, running(tx))
    assert actions.adopt(tx, seen, "start-2")
    assert not actions.adopt(tx, seen, "start-3")
    row = actions.get(tx, seen.id)
    assert (row.owner, row.attempt) == ("start-2", 2)


def test_only_its_owner_writes_into_a_running_order(tx: Tx) -> None:
    order = running(tx)
    for owner, may in (("start-2", False), ("start-1", True)):
        assert actions.set_progress(tx, order, owner, "x" * 300) == may
        assert actions.set_args(tx, order, owner, '{"leg": 1}') == may
        assert actions.is_held(tx, order, owner, attempt=1) == may
        assert actions.finish(tx, order, owner, DONE) == may
    row = actions.get(tx, order)
    assert (row.state, row.args, len(row.progress or ""), row.finished_at is not None) == (
        DONE,
        '{"leg": 1}',
        255,
        True,
    )


def test_an_order_that_is_handed_over_is_the_next_hosts(tx: Tx) -> None:
    order = running(tx)
    assert not actions.hand_over(tx, order, "start-2", step="b", host="h2", args="{}")
    assert actions.hand_over(tx, order, "start-1", step="finish_resize", host="h2", args='{"a": 1}')
    row = actions.get(tx, order)
    assert (row.state, row.step, row.host, row.owner) == (REQUESTED, "finish_resize", "h2", None)
    assert claim(tx, order, step="finish_resize", host="h2")


@pytest.mark.parametrize("state", [REQUESTED, RUNNING])
def test_an_order_is_redirected_or_failed_only_as_it_was_seen(tx: Tx, state: str) -> None:
    seen = actions.get(tx, an_order(tx, state=state, attempt=1))
    moved = {"step": "terminate_instance", "host": "h2", "args": "{}", "deadline_s": 900}
    assert actions.redirect(tx, seen, **moved)
    assert claim(tx, seen.id, step="terminate_instance", host="h2")
    assert not actions.redirect(tx, seen, **moved)
    assert not actions.fail_seen(tx, seen, "late")
    assert actions.fail_seen(tx, actions.get(tx, seen.id), "late")
    assert actions.get(tx, seen.id).state == FAILED


def test_a_delete_aborts_every_open_order_but_its_own(tx: Tx) -> None:
    instance_id = an_instance(tx)
    mine, other, over = (an_order(tx, instance_id=instance_id, state=one) for one in (REQUESTED, RUNNING, DONE))
    assert actions.abort_open(tx, instance_id, "outranked", keep=mine) == 1
    assert [actions.get(tx, one).state for one in (mine, other, over)] == [REQUESTED, "aborted", DONE]
    assert actions.latest_open(tx, instance_id).id == mine


def test_an_instance_without_an_open_order_has_no_latest(tx: Tx) -> None:
    instance_id = an_instance(tx)
    an_order(tx, instance_id=instance_id, state=DONE)
    with pytest.raises(RowNotFoundError):
        actions.latest_open(tx, instance_id)


def test_a_host_finds_what_waits_for_it_and_what_it_left(tx: Tx) -> None:
    old, left = an_order(tx, requested_at=late(tx)), running(tx)
    an_order(tx, host="h2", requested_at=late(tx))
    young = an_order(tx)
    assert [one.id for one in actions.waiting_longer_than(tx, "h1", 0.5)] == [old, left]
    assert [one.id for one in actions.waiting_longer_than(tx, "h1", 0)] == [old, left, young]


def test_what_is_past_its_deadline_is_found_by_state_and_host(tx: Tx) -> None:
    waiting, hanging = an_order(tx, deadline=late(tx)), running(tx, deadline=late(tx))
    an_order(tx), running(tx), an_order(tx, deadline=None)
    assert [one.id for one in actions.expired_requests(tx)] == [waiting]
    assert (actions.expired_running(tx, "h1"), actions.expired_running(tx, "h2")) == ([hanging], [])


def test_what_runs_past_its_deadline_on_a_dead_host_is_anybodys(tx: Tx) -> None:
    service_id = services.create(
        tx, {"host": "h1", "binary": "nova-compute", "topic": "compute", "availability_zone": "nova"}
    )
    services.take_over(tx, service_id, "start-1")
    order = running(tx, deadline=late(tx))
    assert actions.expired_on_dead_hosts(tx, 60) == []
    tx.execute(sa.update(service_table).values(heartbeat_at=actions.seconds_from_now(tx, -61)))
    assert [one.id for one in actions.expired_on_dead_hosts(tx, 60)] == [order]


def test_an_instance_that_is_taken_by_no_order_is_found_on_its_host(tx: Tx) -> None:
    lost, over = an_instance(tx, host="h1", task_state="pausing"), an_instance(tx, host="h1", task_state="stopping")
    an_order(tx), an_order(tx, instance_id=over, state=DONE), an_instance(tx, host="h1")
    an_instance(tx, host="h2", task_state="pausing"), an_instance(tx, host="h1", task_state="pausing", deleted=True)
    assert actions.lost_tasks(tx, "h1") == [lost, over]


def test_histories_are_oldest_first_and_the_latest_newest_first(tx: Tx) -> None:
    instance_id = an_instance(tx)
    first, second = (an_order(tx, instance_id=instance_id, state=one) for one in (DONE, REQUESTED))
    third = an_order(tx, host="h2")
    assert [one.id for one in actions.list_for(tx, instance_id)] == [first, second]
    assert [one.id for one in actions.list_recent(tx, limit=2)] == [third, second]
    assert [one.id for one in actions.list_recent(tx, state=REQUESTED, host="h1")] == [second]
