from __future__ import annotations

from db import quotas
from db.quotas import Usage
from db.session import Database, Tx
from tests.unit.db.db_builders import a_volume, an_instance, counted


def test_a_limit_is_set_changed_and_dropped(tx: Tx) -> None:
    quotas.set_limit(tx, "lab", "cores", 5)
    quotas.set_limit(tx, "lab", "cores", 6)
    quotas.set_limit(tx, "lab", "instances", -1)
    quotas.set_limit(tx, "shop", "cores", 1)
    assert quotas.get(tx, "lab") == {"cores": 6, "instances": -1}
    assert quotas.delete(tx, "lab", "cores") == 1
    assert quotas.get(tx, "lab") == {"instances": -1}
    assert quotas.delete(tx, "lab") == 1
    assert quotas.get(tx, "lab") == {}


def test_the_same_limit_can_be_set_twice(tx: Tx) -> None:
    quotas.set_limit(tx, "lab", "cores", 5)
    quotas.set_limit(tx, "lab", "cores", 5)
    assert quotas.get(tx, "lab") == {"cores": 5}


def test_usage_counts_what_lives_in_one_statement(database: Database) -> None:
    with database.transaction() as tx, counted(database) as sent:
        an_instance(tx, vcpus=2)
        an_instance(tx, vcpus=4, memory_mb=1024)
        a_volume(tx, size=10)
        for gone in ({"deleted": True}, {"project_id": "shop"}):
            an_instance(tx, **gone)
            a_volume(tx, **gone)
        sent.clear()
        assert quotas.usage(tx, "lab") == Usage(instances=2, cores=6, ram_mb=1536, volumes=1, gigabytes=10)
        assert len(sent) == 1


def test_a_project_without_anything_uses_nothing(tx: Tx) -> None:
    assert quotas.usage(tx, "lab") == Usage(instances=0, cores=0, ram_mb=0, volumes=0, gigabytes=0)
