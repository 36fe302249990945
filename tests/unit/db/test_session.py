from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from db import instance_types, networks
from db.errors import DatabaseUnreachableError, DuplicateRowError
from db.session import Database, Tx, utcnow
from tests.unit.db.db_builders import a_network

LOCKED = sa.exc.OperationalError("UPDATE", {}, sqlite3.OperationalError("database is locked"))
LOST = sa.exc.OperationalError("UPDATE", {}, sqlite3.OperationalError("connection lost"))


class Failing:
    """Work that fails so many times, then says how often it was tried."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error, self.times, self.tried = error, times, 0

    def __call__(self, tx: Tx) -> int:
        self.tried += 1
        a_network(tx)
        if self.tried <= self.times:
            raise self.error
        return self.tried


@pytest.fixture
def impatient(database: Database) -> Database:
    database._max_retries, database._retry_interval_s = 3, 0.01
    return database


@pytest.mark.parametrize("error", [LOCKED, LOST])
def test_work_is_repeated_from_the_start_while_the_failure_passes(impatient: Database, error: Exception) -> None:
    assert impatient.run(Failing(error, times=3)) == 4
    assert len(impatient.query(networks.list_all)) == 1


def test_a_lost_server_is_unreachable_once_the_retries_are_used_up(impatient: Database) -> None:
    work = Failing(LOST, times=99)
    with pytest.raises(DatabaseUnreachableError, match="connection lost"):
        impatient.run(work)
    assert work.tried == 4


def test_a_conflict_that_never_ends_is_raised_as_it_is(impatient: Database) -> None:
    with pytest.raises(sa.exc.OperationalError, match="database is locked"):
        impatient.run(Failing(LOCKED, times=99))


def test_a_mistake_is_not_repeated(impatient: Database) -> None:
    work = Failing(sa.exc.ProgrammingError("SELEC", {}, sqlite3.ProgrammingError("syntax error")), times=99)
    with pytest.raises(sa.exc.ProgrammingError):
        impatient.run(work)
    assert work.tried == 1


def test_work_that_fails_leaves_nothing(database: Database) -> None:
    def work(tx: Tx) -> None:
        a_network(tx)
        instance_types.create(tx, name="m1.tiny", flavorid="9", memory_mb=1, vcpus=1, local_gb=0)

    with pytest.raises(DuplicateRowError):
        database.run(work)
    assert database.query(networks.list_all) == []


def test_a_reader_does_not_wait_for_a_writer(database: Database) -> None:
    with database.transaction() as tx:
        a_network(tx)
        assert database.query(networks.list_all) == []
    assert len(database.query(networks.list_all)) == 1


def test_times_are_naive_utc_to_the_microsecond_column(database: Database) -> None:
    with database.read() as tx:
        now = tx.execute(sa.select(utcnow())).scalar_one()
    assert now.tzinfo is None
    assert abs((datetime.now(UTC).replace(tzinfo=None) - now).total_seconds()) < 5


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnreachableError, match=r"nowhere/nova\.sqlite: its directory does not exist"):
        Database(f"sqlite:///{tmp_path}/nowhere/nova.sqlite")
