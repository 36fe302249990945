"""What is particular to SQLite: commits that are on the disk, and searches that its planner must not spoil."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compute import conf as conf_module
from compute.service import open_database
from db import boot, networks
from db.session import Database, Tx
from tests.fakes.databases import a_database, an_instance
from tests.functional.costs import counted

FULL, NORMAL = 2, 1
ASKED: dict[str, Any] = {"user_id": "anna", "project_id": "lab", "instance_type": "m1.tiny", "image": None}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = a_database(tmp_path)
    yield made
    made.dispose()


@pytest.mark.parametrize(("flag", "level"), [({}, FULL), ({"sqlite_synchronous": False}, NORMAL)])
def test_what_is_committed_is_on_the_disk_unless_that_is_not_wanted(
    tmp_path: Path, flag: dict[str, Any], level: int
) -> None:
    conf = conf_module.load([], {"sql_connection": f"sqlite:///{tmp_path}/nova.sqlite", **flag})
    opened = open_database(conf)
    with opened.transaction() as tx:
        assert tx.exec_driver_sql("PRAGMA synchronous").scalar_one() == level
    opened.dispose()


def test_an_address_is_found_without_looking_through_those_of_others(database: Database) -> None:
    small, large = (
        database.run(networks.create, label=cidr, cidr=cidr, bridge="br100") for cidr in ("10.0.0.0/28", "10.1.0.0/22")
    )
    for _ in range(200):
        database.run(_claim, large, an_instance(database))
    steps = [_steps(database, _claim, network_id, an_instance(database)) for network_id in (small, large)]
    assert steps[1] < steps[0] * 1.5


def test_what_a_project_uses_is_added_up_in_an_index(database: Database) -> None:
    with counted() as sent:
        database.run(boot.facts, **ASKED, limits={"instances": 9, "cores": 9})
    text = sent.statements[0]
    with database.read() as tx:
        plan = [row[3] for row in tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", ("lab",) * text.count("?"))]
    read = [line for line in plan if " instances " in line]
    assert len(read) == 2
    assert all("USING COVERING INDEX ix_instances_usage" in line for line in read), plan


def test_what_a_project_uses_is_not_added_up_where_nothing_limits_it(database: Database) -> None:
    for _ in range(100):
        an_instance(database)
    limited, free = (_steps(database, _facts, {"instances": most, "cores": most}) for most in (999, -1))
    assert free < limited / 2


def _facts(tx: Tx, limits: dict[str, int]) -> boot.BootFacts:
    return boot.facts(tx, **ASKED, limits=limits)


def _claim(tx: Tx, network_id: int, instance_id: int) -> str:
    return networks.claim(
        tx, network_id, instance_id, f"02:16:3e:00:{instance_id >> 8:02x}:{instance_id & 255:02x}"
    ).address


def _steps(database: Database, work: Any, *args: Any) -> int:
    """How many steps SQLite's machine takes for it."""
    taken = [0]

    def step() -> None:
        taken[0] += 1

    def counting(tx: Tx) -> None:
        raw = tx.connection.dbapi_connection
        raw.set_progress_handler(step, 1)  # type: ignore[union-attr]
        work(tx, *args)
        raw.set_progress_handler(None, 1)  # type: ignore[union-attr]

    database.run(counting)
    return taken[0]
