"""How repositories turn result rows into frozen dataclasses, and the errors for rows that are not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache, lru_cache
from typing import Any, TypeVar

import sqlalchemy as sa

from db.errors import RowNotFoundError
from db.prepared import NOTHING, Params, Prepared
from db.session import Tx, utcnow

Row = TypeVar("Row")
Query = sa.Select[Any] | Prepared


@cache
def columns(row_type: type, table: sa.Table) -> tuple[sa.Column[Any], ...]:
    """The columns of `table` that `row_type` has fields for, in the order of its fields."""
    return tuple(table.c[field.name] for field in fields(row_type))


@cache
def select_live(row_type: type, table: sa.Table) -> sa.Select[Any]:
    """SELECT of `row_type` over the rows that are not soft-deleted."""
    return sa.select(*columns(row_type, table)).where(table.c.deleted == sa.false())


def row_id(key: str | int) -> int:
    """The id that `key` may be, or -1, which no row has."""
    text = str(key)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1


def first(tx: Tx, row_type: type[Row], statement: Query, params: Params = NOTHING) -> Row | None:
    """The first row as `row_type`, or None."""
    found = statement.first(tx, params) if isinstance(statement, Prepared) else tx.execute(statement, params).first()
    return None if found is None else row_type(*found)


def one(tx: Tx, row_type: type[Row], statement: Query, kind: str, key: object, params: Params = NOTHING) -> Row:
    """The row as `row_type`; RowNotFoundError(kind, key) when there is none."""
    row = first(tx, row_type, statement, params)
    if row is None:
        raise RowNotFoundError(kind, key)
    return row


def every(tx: Tx, row_type: type[Row], statement: Query, params: Params = NOTHING) -> list[Row]:
    """All rows as `row_type`."""
    found = statement.every(tx, params) if isinstance(statement, Prepared) else tx.execute(statement, params)
    return [row_type(*row) for row in found]


def insert(tx: Tx, table: sa.Table, values: dict[str, Any]) -> int:
    """Insert one row, whose values may be SQL expressions that are kept and used again, and return its id."""
    plain, computed = _apart(values)
    return _setting(_insert(table), tuple(computed.items())).insert(tx, plain)


def insert_unless_there(tx: Tx, table: sa.Table, values: dict[str, Any]) -> None:
    """Insert one row of plain values, or leave the one alone that has a unique value of it.

    It waits for whoever is inserting the same. There is no savepoint in it: MariaDB forgets those when it picks a
    deadlock's victim, and then tells of the lost savepoint instead of the deadlock.
    """
    tx.execute(_insert_unless_there(table, tx.dialect.name), values)


def change(tx: Tx, statement: sa.Update, changes: Mapping[str, Any], **params: Any) -> int:
    """Run an UPDATE of one's own making with `changes` added to what it sets; how many rows it met.

    changes may be SQL expressions that are kept and used again, as `utcnow()` is; params are for the binds of its
    WHERE, which must not be named like columns.
    """
    plain, computed = _apart(changes)
    return _setting(statement, tuple(computed.items())).change(tx, {**plain, **params})


@cache
def _insert(table: sa.Table) -> sa.Insert:
    return sa.insert(table)


@cache
def _insert_unless_there(table: sa.Table, dialect: str) -> sa.Insert:
    from sqlalchemy.dialects import mysql, postgresql, sqlite  # a start does without those that are not its database's

    if dialect in {"mysql", "mariadb"}:
        return mysql.insert(table).on_duplicate_key_update(id=table.c.id)
    if dialect == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


@lru_cache(256)
def _setting(statement: sa.Insert | sa.Update, computed: tuple[tuple[str, Any], ...]) -> Prepared:
    return Prepared(statement.values(dict(computed)) if computed else statement)


def _apart(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Plain values, and SQL expressions. Plain ones go in as parameters: to build them into a statement costs more
    than to run it."""
    computed = {name: value for name, value in values.items() if isinstance(value, sa.ClauseElement)}
    return {name: value for name, value in values.items() if name not in computed}, computed


def insert_many(tx: Tx, table: sa.Table, values: Sequence[dict[str, Any]]) -> None:
    """Insert rows in one statement; no ids come back."""
    if len(values) == 1:
        insert(tx, table, values[0])
    elif values:
        tx.execute(_insert(table), list(values))


def soft_delete(tx: Tx, table: sa.Table, row_id: int, **also: Any) -> bool:
    """Mark a live row deleted, freeing its unique names; False when it was not live."""
    values: dict[str, Any] = {"deleted": True, "deleted_at": utcnow(), **also}
    if "live" in table.c:
        values["live"] = None
    done = tx.execute(sa.update(table).where(table.c.id == row_id, table.c.deleted == sa.false()).values(values))
    return bool(done.rowcount == 1)
