from __future__ import annotations

import pytest

from db import resizes
from db.errors import RowNotFoundError
from db.session import Tx
from tests.unit.db.db_builders import an_instance


def a_resize(tx: Tx, instance_id: int, **changes: str | int) -> int:
    values = {"kind": "resize", "source_compute": "host1", "dest_compute": "host2", "status": "finished"}
    return resizes.create(tx, instance_id=instance_id, **(values | changes))


def test_the_newest_finished_move_is_the_one_to_confirm(tx: Tx) -> None:
    instance_id = an_instance(tx)
    a_resize(tx, instance_id)
    newest = a_resize(tx, instance_id, old_flavor_id=1, new_flavor_id=2)
    failed = a_resize(tx, instance_id, status="error")
    found = resizes.latest_finished(tx, instance_id)
    assert found == resizes.get(tx, newest)
    assert (found.old_flavor_id, found.new_flavor_id) == (1, 2)
    assert resizes.latest(tx, instance_id) == resizes.get(tx, failed)


def test_an_instance_that_never_moved_has_nothing_to_confirm(tx: Tx) -> None:
    instance_id = an_instance(tx)
    assert resizes.latest_finished(tx, instance_id) is None
    assert resizes.latest(tx, instance_id) is None


def test_a_status_moves_on_once(tx: Tx) -> None:
    resize_id = a_resize(tx, an_instance(tx))
    assert resizes.set_status(tx, resize_id, "finished", "confirming", disk_info="[]")
    assert not resizes.set_status(tx, resize_id, "finished", "reverting")
    assert resizes.set_status(tx, resize_id, ["finished", "confirming"], "confirmed")
    found = resizes.get(tx, resize_id)
    assert (found.status, found.disk_info) == ("confirmed", "[]")
    assert found.updated_at is not None


def test_moves_are_listed_by_either_host_status_and_instance(tx: Tx) -> None:
    one, two = an_instance(tx), an_instance(tx)
    first = a_resize(tx, one)
    second = a_resize(tx, two, source_compute="host3", dest_compute="host1", status="migrating")
    assert [each.id for each in resizes.list_all(tx, host="host1")] == [first, second]
    assert [each.id for each in resizes.list_all(tx, host="host1", statuses=["migrating"])] == [second]
    assert [each.id for each in resizes.list_all(tx, instance_id=one)] == [first]


def test_a_move_that_is_not_there_is_named(tx: Tx) -> None:
    with pytest.raises(RowNotFoundError, match="no migration 99"):
        resizes.get(tx, 99)
