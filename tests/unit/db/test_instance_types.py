from __future__ import annotations

import pytest

from db import instance_types
from db.errors import DuplicateRowError, RowInUseError, RowNotFoundError
from db.session import Database, Tx
from tests.unit.db.db_builders import an_instance

SIZES = {"memory_mb": 64, "vcpus": 1, "local_gb": 0}


def test_the_five_flavors_of_2011_are_there(tx: Tx) -> None:
    found = {each.name: (each.memory_mb, each.vcpus, each.local_gb) for each in instance_types.list_all(tx)}
    assert found == {
        "m1.tiny": (512, 1, 0),
        "m1.small": (2048, 1, 20),
        "m1.medium": (4096, 2, 40),
        "m1.large": (8192, 4, 80),
        "m1.xlarge": (16384, 8, 160),
    }


def test_a_type_is_found_by_name_before_flavorid_before_id(tx: Tx) -> None:
    by_id = instance_types.create(tx, name="a", flavorid="100", **SIZES)
    by_flavorid = instance_types.create(tx, name="b", flavorid=str(by_id), **SIZES)
    assert instance_types.get_by_name_or_flavorid(tx, by_id).id == by_flavorid
    by_name = instance_types.create(tx, name=str(by_id), flavorid="101", **SIZES)
    assert instance_types.get_by_name_or_flavorid(tx, str(by_id)).id == by_name
    assert instance_types.get_by_name_or_flavorid(tx, by_name).id == by_name


@pytest.mark.parametrize("key", ["m1.giant", "99999999999999999999", "-1", "²", ""])
def test_a_type_that_is_not_there_is_named(tx: Tx, key: str) -> None:
    with pytest.raises(RowNotFoundError, match=f"no instance type {key}"):
        instance_types.get_by_name_or_flavorid(tx, key)


def test_names_differ_by_case(tx: Tx) -> None:
    with pytest.raises(RowNotFoundError):
        instance_types.get_by_name_or_flavorid(tx, "M1.TINY")


@pytest.mark.parametrize("taken", [{"name": "m1.tiny", "flavorid": "9"}, {"name": "new", "flavorid": "1"}])
def test_a_name_or_flavorid_is_taken_once(database: Database, taken: dict[str, str]) -> None:
    with pytest.raises(DuplicateRowError):
        database.run(instance_types.create, **taken, **SIZES)


def test_a_destroyed_type_stays_with_its_instances_and_frees_its_name(tx: Tx) -> None:
    instance_types.destroy(tx, "m1.tiny")
    assert instance_types.get(tx, 1).deleted
    assert "m1.tiny" not in {each.name for each in instance_types.list_all(tx)}
    assert "m1.tiny" in {each.name for each in instance_types.list_all(tx, inactive=True)}
    assert instance_types.create(tx, name="m1.tiny", flavorid="1", **SIZES) > 5


def test_a_purged_type_is_gone(tx: Tx) -> None:
    instance_types.destroy(tx, "m1.tiny")
    instance_types.purge(tx, "m1.tiny")
    with pytest.raises(RowNotFoundError):
        instance_types.get(tx, 1)


def test_a_type_with_instances_is_not_purged(tx: Tx) -> None:
    an_instance(tx, deleted=True)
    with pytest.raises(RowInUseError, match=r"instance type m1\.tiny is in use by instances"):
        instance_types.purge(tx, "m1.tiny")


@pytest.mark.parametrize("verb", [instance_types.destroy, instance_types.purge])
def test_what_is_not_there_cannot_be_withdrawn(tx: Tx, verb: type) -> None:
    with pytest.raises(RowNotFoundError):
        verb(tx, "m1.giant")
