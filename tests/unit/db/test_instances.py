"""Instances: who takes one, who gives it back, and what a look at the hypervisor may write."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from db import instances
from db.actions import seconds_from_now
from db.errors import RowNotFoundError
from db.instances import PowerRecord
from db.session import Tx
from tests.unit.db.db_builders import an_instance


def begin(tx: Tx, instance_id: int, **changes: Any) -> bool:
    """Take it for a pause."""
    wanted = {"task": "pausing", "from_vm_states": ["active"], "also_locked": False}
    return instances.begin_task(tx, instance_id, **(wanted | changes))


def seen(tx: Tx, instance_id: int) -> PowerRecord:
    row = instances.get(tx, instance_id)
    return PowerRecord(row.id, row.uuid, row.vm_state, row.task_state, row.power_state)


def test_a_free_instance_is_taken_by_one(tx: Tx) -> None:
    instance_id = an_instance(tx)
    assert begin(tx, instance_id)
    assert not begin(tx, instance_id, task="stopping")
    assert instances.get(tx, instance_id).task_state == "pausing"


@pytest.mark.parametrize(
    "so", [{"vm_state": "stopped"}, {"locked": True}, {"deleted": True}, {"task_state": "stopping"}]
)
def test_an_instance_that_is_not_free_is_not_taken(tx: Tx, so: dict[str, Any]) -> None:
    assert not begin(tx, an_instance(tx, **so))


def test_an_administrator_takes_a_locked_one_and_a_build_what_waits_for_it(tx: Tx) -> None:
    assert begin(tx, an_instance(tx, locked=True), also_locked=True)
    assert begin(tx, an_instance(tx, task_state="scheduling"), replaces="scheduling")


def test_a_delete_takes_what_is_busy_once(tx: Tx) -> None:
    instance_id = an_instance(tx, task_state="pausing")
    assert instances.override_task(tx, instance_id, "deleting")
    assert not instances.override_task(tx, instance_id, "deleting")
    assert not instances.override_task(tx, an_instance(tx, deleted=True), "deleting")


def test_only_the_task_that_holds_it_gives_it_back_or_moves_it(tx: Tx) -> None:
    instance_id = an_instance(tx, task_state="deleting")
    assert not instances.end_task(tx, instance_id, "pausing", {"vm_state": "paused"})
    assert not instances.set_host(tx, instance_id, "pausing", "host2")
    assert instances.set_host(tx, instance_id, "deleting", "host2")
    assert instances.end_task(tx, instance_id, "deleting", {"vm_state": "deleted"})
    row = instances.get(tx, instance_id)
    assert (row.vm_state, row.task_state, row.host) == ("deleted", None, "host2")


def test_a_deleted_instance_is_read_only_when_asked_for(tx: Tx) -> None:
    instance_id = an_instance(tx, deleted=True)
    with pytest.raises(RowNotFoundError):
        instances.get(tx, instance_id)
    assert instances.get(tx, instance_id, read_deleted=True).deleted
    assert instances.list_all(tx) == instances.by_ids(tx, [instance_id]) == []
    assert [one.id for one in instances.by_ids(tx, [instance_id], read_deleted=True)] == [instance_id]


def test_a_name_or_uuid_finds_what_a_project_may_see_newest_first(tx: Tx) -> None:
    first, second = an_instance(tx), an_instance(tx)
    an_instance(tx, project_id="other"), an_instance(tx, display_name="db"), an_instance(tx, deleted=True)
    assert [one.id for one in instances.find(tx, "web", project_id="lab")] == [second, first]
    assert [one.id for one in instances.find(tx, instances.get(tx, first).uuid.upper())] == [first]


def test_what_the_hypervisor_says_is_written_for_all_that_are_as_they_were(tx: Tx) -> None:
    ids = [an_instance(tx, power_state=1, host="h1") for _ in range(4)]
    records = [seen(tx, one) for one in ids]
    busy, changed, moved = ids[:3]
    instances.update(tx, busy, task_state="pausing")
    instances.update(tx, changed, vm_state="paused")
    instances.update(tx, moved, host="h2")
    assert instances.write_power(tx, records, "h1", _soon(tx), 4, "stopped") == 1
    assert [instances.get(tx, one).vm_state for one in ids] == ["active", "paused", "active", "stopped"]


def test_a_look_from_before_an_operation_writes_nothing(tx: Tx) -> None:
    instance_id = an_instance(tx, power_state=1, host="h1")
    before = instances.clock(tx)
    assert begin(tx, instance_id)
    assert instances.end_task(tx, instance_id, "pausing", {"vm_state": "active"})
    record = seen(tx, instance_id)
    assert instances.write_power(tx, [record], "h1", before, 4, "stopped") == 0
    assert instances.write_power(tx, [record], "h1", _soon(tx), 4, "stopped") == 1


def test_an_idle_rescue_that_lasts_too_long_is_found_on_its_host(tx: Tx) -> None:
    old = {"rescued_at": seconds_from_now(tx, -100), "vm_state": "rescued"}
    found = an_instance(tx, host="h1", **old)
    an_instance(tx, host="h2", **old), an_instance(tx, host="h1", task_state="unrescuing", **old)
    an_instance(tx, host="h1", vm_state="rescued", rescued_at=seconds_from_now(tx, -10))
    assert instances.rescued_before(tx, "h1", 60) == [found]


def _soon(tx: Tx) -> datetime:
    return instances.clock(tx) + timedelta(seconds=5)
