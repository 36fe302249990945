"""What a deleted instance leaves to a host that was silent, and the deletes that wait for one."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from db import actions, audit, cleaning, networks, services
from db.models import services as service_table
from db.session import Tx
from tests.unit.db.db_builders import MAC, a_network, an_instance


def a_delete(tx: Tx, **changes: Any) -> actions.Action:
    """An open delete of an instance of its own that waits for h1."""
    values = {"instance_id": an_instance(tx, task_state="deleting"), "action": "deleting", "step": "terminate_instance"}
    values |= {"request_id": "req-1", "user_id": "ann", "project_id": "lab", "args": "{}", "host": "h1"}
    return actions.get(tx, actions.create(tx, values | {"state": "requested"} | changes))


def test_what_is_owed_waits_for_its_host_without_a_deadline(tx: Tx) -> None:
    delete = a_delete(tx)
    order = actions.get(tx, cleaning.owe(tx, delete, "h2"))
    assert (order.state, order.host, order.deadline, order.request_id) == ("requested", "h2", None, "req-1")
    assert cleaning.owed(tx) == cleaning.owed(tx, "h2") == [order]
    assert cleaning.owed(tx, "h1") == []
    assert order in actions.waiting_longer_than(tx, "h2", 0)


def test_what_is_owed_is_paid_once_and_the_last_one_knows(tx: Tx) -> None:
    delete = a_delete(tx)
    first, last = (actions.get(tx, cleaning.owe(tx, delete, host)) for host in ("h1", "h2"))
    assert not cleaning.is_last(tx, first)
    assert cleaning.finish(tx, first)
    assert not cleaning.finish(tx, first)
    assert cleaning.is_last(tx, last)


def test_only_old_open_deletes_of_the_silent_are_found(tx: Tx) -> None:
    old = {"requested_at": actions.seconds_from_now(tx, -100)}
    found = [a_delete(tx, **old).id, a_delete(tx, state="running", **old).id]
    (
        a_delete(tx),
        a_delete(tx, state="done", **old),
        a_delete(tx, host="h2", **old),
        a_delete(tx, action="pausing", **old),
    )
    assert [one.id for one in cleaning.waiting_for(tx, ["h1"], "deleting", 60)] == found


@pytest.mark.parametrize("state", ["requested", "running"])
def test_a_delete_is_ended_only_as_it_was_seen(tx: Tx, state: str) -> None:
    seen = a_delete(tx, state=state)
    assert actions.finish_seen(tx, seen, "without h1")
    assert not actions.finish_seen(tx, seen, "again")
    row = actions.get(tx, seen.id)
    assert (row.state, row.progress, row.finished_at is not None) == ("done", "without h1", True)


def test_what_a_deleted_instance_holds_is_no_leak_while_it_is_owed(tx: Tx) -> None:
    delete = a_delete(tx)
    networks.claim(tx, a_network(tx), delete.instance_id, MAC)
    tx.execute(sa.text("UPDATE instances SET deleted = :yes"), {"yes": True})
    assert len(audit.held_addresses(tx)) == 1
    order = actions.get(tx, cleaning.owe(tx, delete, "h1"))
    assert audit.held_addresses(tx) == []
    cleaning.finish(tx, order)
    assert len(audit.held_addresses(tx)) == 1


def test_the_silent_are_those_who_signed_off_or_are_late(tx: Tx) -> None:
    for host in ("alive", "late", "off", "never"):
        service = {"host": host, "binary": "nova-compute", "topic": "compute", "availability_zone": "nova"}
        service_id = services.create(tx, service)
        if host != "never":
            services.take_over(tx, service_id, "start")
        if host == "off":
            services.sign_off(tx, service_id, "start")
    long_ago = actions.seconds_from_now(tx, -100)
    tx.execute(sa.update(service_table).where(service_table.c.host == "late").values(heartbeat_at=long_ago))
    assert sorted(services.silent(tx, "nova-compute", 60)) == ["late", "never", "off"]
    assert services.silent(tx, "nova-scheduler", 60) == []
