"""An order that waits for a host gets one once, whoever asks."""

from __future__ import annotations

from typing import Any

from db import actions, placing
from db.session import Tx
from tests.unit.db.db_builders import an_instance


def an_order(tx: Tx, **changes: Any) -> int:
    """A requested build without a host."""
    values = {"instance_id": an_instance(tx, host=None, vm_state="building"), "action": "spawning"}
    values |= {"step": "run_instance", "request_id": "req-1", "user_id": "ann", "project_id": "lab", "args": "{}"}
    return actions.create(tx, values | {"host": None, "state": actions.REQUESTED} | changes)


def test_a_waiting_order_is_assigned_once(tx: Tx) -> None:
    order = an_order(tx)
    assert placing.assign(tx, order, "h1")
    assert not placing.assign(tx, order, "h2")
    assert actions.get(tx, order).host == "h1"


def test_what_was_assigned_or_is_over_cannot_be_failed(tx: Tx) -> None:
    placed, over = an_order(tx, host="h1"), an_order(tx, state=actions.ABORTED)
    assert not placing.fail(tx, placed, "no host")
    assert not placing.fail(tx, over, "no host")
    assert not placing.assign(tx, over, "h1")


def test_a_waiting_order_that_fails_says_why(tx: Tx) -> None:
    order = an_order(tx)
    assert placing.fail(tx, order, "no host")
    assert not placing.assign(tx, order, "h1")
    row = actions.get(tx, order)
    assert (row.state, row.error) == (actions.FAILED, "no host")
    assert row.finished_at is not None


def test_only_host_less_requests_of_that_action_and_age_wait(tx: Tx) -> None:
    order = an_order(tx)
    an_order(tx, host="h1")
    an_order(tx, state=actions.RUNNING)
    an_order(tx, action="deleting")
    assert [one.id for one in placing.waiting(tx, "spawning")] == [order]
    assert placing.waiting(tx, "spawning", age_s=60) == []
