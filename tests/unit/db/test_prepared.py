from __future__ import annotations

from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects.mysql import pymysql
from sqlalchemy.dialects.postgresql import psycopg

from db import actions, networks
from db.errors import DuplicateRowError
from db.models import instances
from db.models import networks as table
from db.prepared import Prepared, _plan
from db.session import Database, Tx, utcnow
from tests.unit.db.db_builders import a_network, an_instance

BY_LABEL = Prepared(sa.select(table.c.id, table.c.injected, table.c.label).where(table.c.label == sa.bindparam("key")))
RENAME = Prepared(sa.update(table).where(table.c.label == sa.bindparam("key")).values(label=sa.bindparam("called")))


def test_rows_have_names_and_the_types_of_their_columns(tx: Tx) -> None:
    network_id = a_network(tx, label="blue", injected=True)
    found = BY_LABEL.first(tx, {"key": "blue"})
    assert (found.id, found.label, found.injected is True) == (network_id, "blue", True)
    assert BY_LABEL.every(tx, {"key": "blue"}) == [found]
    assert BY_LABEL.first(tx, {"key": "red"}) is None


def test_times_go_in_and_come_out_as_they_are(tx: Tx) -> None:
    when, key = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC).replace(tzinfo=None), an_instance(tx)
    touch = Prepared(sa.update(instances).where(instances.c.id == sa.bindparam("key")))
    assert touch.change(tx, {"key": key, "launched_at": when, "locked": True}) == 1
    facts = sa.select(instances.c.launched_at, instances.c.locked, utcnow().label("now"))
    found = Prepared(facts.where(instances.c.id == sa.bindparam("key"))).first(tx, {"key": key})
    assert (found.launched_at, found.locked) == (when, True)
    assert abs((datetime.now(UTC).replace(tzinfo=None) - found.now).total_seconds()) < 5


def test_a_change_counts_what_it_met(tx: Tx) -> None:
    a_network(tx, label="blue")
    assert RENAME.change(tx, {"key": "blue", "called": "red"}) == 1
    assert RENAME.change(tx, {"key": "blue", "called": "red"}) == 0


def test_an_insert_gives_its_id(tx: Tx) -> None:
    first, second = an_instance(tx), an_instance(tx)
    assert Prepared(sa.select(sa.func.max(instances.c.id).label("last"))).first(tx).last == second > first


@pytest.mark.parametrize("given", [{}, {"key": "blue", "kye": "red"}])
def test_values_that_do_not_fit_the_statement_are_refused(tx: Tx, given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"missing: \['key'\], of no use: \[\]|missing: \[\], of no use: \['kye'\]"):
        BY_LABEL.first(tx, given)


def test_a_list_is_not_prepared(tx: Tx) -> None:
    listed = Prepared(sa.select(table.c.id).where(table.c.id.in_([1, 2])))
    with pytest.raises(ValueError, match="not to be prepared"):
        listed.first(tx)


def test_errors_are_those_of_any_statement(database: Database) -> None:
    database.run(a_network, label="blue")
    other = database.run(a_network, label="red", cidr="10.9.0.0/29")
    with pytest.raises(DuplicateRowError):
        database.run(RENAME.change, {"key": "red", "called": "blue"})
    assert database.query(networks.get, other).label == "red"


def test_who_listens_hears_of_it(database: Database) -> None:
    heard: list[str] = []

    def hears(_connection: object, _cursor: object, text: str, *_: object) -> None:
        heard.append(text)

    event.listen(sa.Engine, "before_cursor_execute", hears)
    try:
        database.query(BY_LABEL.first, {"key": "blue"})
    finally:
        event.remove(sa.Engine, "before_cursor_execute", hears)
    assert len(heard) == 1
    assert "FROM networks" in heard[0]


def test_a_lost_connection_is_known_to_be_lost(tx: Tx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tx.dialect, "is_disconnect", lambda *_: True)
    broken = Prepared(sa.select(sa.literal_column("1 FROM nowhere").label("one")))
    with pytest.raises(sa.exc.DBAPIError) as told:
        broken.first(tx)
    assert told.value.connection_invalidated
    assert tx.invalidated


def test_an_insert_of_one_database_is_none_of_another() -> None:
    add = sa.insert(table)
    plans = [_plan(add, dialect(), frozenset({"label"})) for dialect in (pymysql.dialect, psycopg.dialect)]
    assert [plan.text.endswith("RETURNING networks.id") for plan in plans] == [False, True]
    assert [plan.row is None for plan in plans] == [True, False]


def test_a_deadline_is_text_that_is_made_once(tx: Tx) -> None:
    assert actions.seconds_from_now(tx, 60) is actions.seconds_from_now(tx, 60)
