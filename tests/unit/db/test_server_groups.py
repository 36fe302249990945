from __future__ import annotations

import pytest

from db import server_groups
from db.errors import DuplicateRowError, RowInUseError, RowNotFoundError
from db.session import Database, Tx
from tests.unit.db.db_builders import an_instance


def a_group(tx: Tx, **changes: str) -> int:
    return server_groups.create(tx, **({"name": "web", "project_id": "lab", "policy": "anti-affinity"} | changes))


def test_a_group_is_found_by_name_before_id_within_its_project(tx: Tx) -> None:
    first = a_group(tx)
    second = a_group(tx, name=str(first))
    assert server_groups.find(tx, "lab", "web") == server_groups.get(tx, first)
    assert server_groups.find(tx, "lab", first).id == second
    with pytest.raises(RowNotFoundError, match="no server group web"):
        server_groups.find(tx, "shop", "web")


def test_groups_are_listed_by_project(tx: Tx) -> None:
    first, second = a_group(tx), a_group(tx, project_id="shop")
    assert [each.id for each in server_groups.list_all(tx)] == [first, second]
    assert [each.id for each in server_groups.list_all(tx, project_id="shop")] == [second]


def test_a_name_is_taken_once_in_a_project(database: Database) -> None:
    database.run(a_group)
    with pytest.raises(DuplicateRowError):
        database.run(a_group)


def test_members_are_the_live_instances_and_their_hosts(tx: Tx) -> None:
    group_id = a_group(tx)
    placed = an_instance(tx, server_group_id=group_id)
    waiting = an_instance(tx, server_group_id=group_id, host=None)
    an_instance(tx, server_group_id=group_id, deleted=True)
    assert server_groups.members(tx, group_id) == {placed: "host1", waiting: None}


def test_a_group_goes_once_it_is_empty(tx: Tx) -> None:
    full, empty = a_group(tx), a_group(tx, name="empty")
    an_instance(tx, server_group_id=full)
    with pytest.raises(RowInUseError, match=f"server group {full} is in use by instances"):
        server_groups.delete(tx, full)
    server_groups.delete(tx, empty)
    with pytest.raises(RowNotFoundError):
        server_groups.delete(tx, empty)
