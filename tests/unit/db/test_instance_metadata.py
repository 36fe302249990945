from __future__ import annotations

from db import instance_metadata
from db.session import Database, Tx
from tests.unit.db.db_builders import an_instance, counted


def test_metadata_is_given_to_many_and_read_of_many_in_a_statement_each(database: Database) -> None:
    with database.transaction() as tx, counted(database) as sent:
        one, two, three = (an_instance(tx) for _ in range(3))
        sent.clear()
        instance_metadata.create(tx, [one, two], {"role": "web", "tier": "1"})
        assert instance_metadata.of_instances(tx, [one, two, three]) == {
            one: {"role": "web", "tier": "1"},
            two: {"role": "web", "tier": "1"},
        }
        assert len(sent) == 2


def test_an_update_adds_and_replaces(tx: Tx) -> None:
    instance_id = an_instance(tx)
    instance_metadata.create(tx, [instance_id], {"a": "1", "b": "2"})
    instance_metadata.update(tx, instance_id, {"b": "3", "c": "4"})
    instance_metadata.update(tx, instance_id, {})
    assert instance_metadata.get(tx, instance_id) == {"a": "1", "b": "3", "c": "4"}


def test_a_key_is_deleted_once(tx: Tx) -> None:
    instance_id = an_instance(tx)
    instance_metadata.create(tx, [instance_id], {"a": "1"})
    assert instance_metadata.delete(tx, instance_id, "a")
    assert not instance_metadata.delete(tx, instance_id, "a")
    assert instance_metadata.get(tx, instance_id) == {}


def test_nothing_is_asked_about_no_instances(database: Database) -> None:
    with database.transaction() as tx, counted(database) as sent:
        assert instance_metadata.of_instances(tx, []) == {}
        instance_metadata.create(tx, [], {"a": "1"})
    assert sent == []
