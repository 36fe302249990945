from __future__ import annotations

import pytest
import sqlalchemy as sa

from db import connections, networks
from db.connections import Connections, Loan
from db.errors import RowNotFoundError
from db.session import Database, Tx
from tests.unit.db.db_builders import a_network


@pytest.fixture
def kept(database: Database) -> Connections:
    return Connections(database.reader, most=2)


def test_the_next_unit_of_work_has_the_same_connection(kept: Connections) -> None:
    first = kept.take()
    kept.give_back(first)
    assert kept.take() is first


def test_two_at_a_time_have_one_each(kept: Connections) -> None:
    assert kept.take() is not kept.take()


def test_more_than_its_number_are_not_kept(kept: Connections) -> None:
    taken = [kept.take() for _ in range(3)]
    for one in taken:
        kept.give_back(one)
    assert [one.closed for one in taken] == [False, False, True]


def test_one_that_nobody_needed_for_long_is_let_go(kept: Connections, monkeypatch: pytest.MonkeyPatch) -> None:
    old = kept.take()
    kept.give_back(old)
    monkeypatch.setattr(connections, "IDLE_S", 0.0)
    assert kept.take() is not old
    assert old.closed


def test_one_that_is_old_is_let_go_however_busy(database: Database) -> None:
    kept = Connections(database.reader, most=2, replaced_after_s=0.0)
    busy = kept.take()
    kept.give_back(busy)
    assert busy.closed


def test_one_that_failed_is_let_go_alone(kept: Connections) -> None:
    failed, good = kept.take(), kept.take()
    kept.give_back(good)
    kept.give_up(failed)
    assert failed.closed
    assert kept.take() is good


def test_one_that_lost_its_server_takes_the_idle_ones_along(kept: Connections) -> None:
    lost, idle = kept.take(), kept.take()
    kept.give_back(idle)
    lost.invalidate()
    kept.give_up(lost)
    assert idle.closed


def test_work_that_fails_is_rolled_back_and_said_to_be_over(database: Database) -> None:
    over: list[BaseException | None] = []

    def work() -> None:
        with Loan(Connections(database.engine, 1), begins=True, over=over.append) as tx:
            a_network(tx)
            networks.get(tx, 99)

    with pytest.raises(RowNotFoundError):
        work()
    assert isinstance(over[0], RowNotFoundError)
    assert database.query(networks.list_all) == []


def test_a_commit_that_fails_is_told_and_its_connection_let_go(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise OSError("no room")

    held: list[sa.Connection] = []

    def work(tx: Tx) -> None:
        held.append(tx)
        a_network(tx)

    monkeypatch.setattr(database.engine.dialect, "do_commit", refuse)
    with pytest.raises(OSError, match="no room"):
        database.run(work)
    monkeypatch.undo()
    assert held[0].closed
    assert database.run(networks.list_all) == []


def test_a_begin_that_fails_leaves_no_connection_behind(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise OSError("no lock")

    monkeypatch.setattr(database.engine.dialect, "do_begin", refuse)
    for _ in range(70):  # more than the pool has
        with pytest.raises(OSError, match="no lock"):
            database.transaction().__enter__()
