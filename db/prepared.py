"""Statements that run often: SQLAlchemy makes their text once, and their values then go to the driver by themselves.

What SQLAlchemy does anew for every execution (find the compiled text, ask each value for its type, make a context and a
result that can do everything) costs several times what the database needs for one row. Text, types, connection and
errors are SQLAlchemy's here too, and whoever listens for `before_cursor_execute` hears of every statement.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

import sqlalchemy as sa

Statement = sa.Select[Any] | sa.Insert | sa.Update | sa.Delete
Params = Mapping[str, Any]
NOTHING: Params = MappingProxyType({})

T = TypeVar("T")
_Process = Callable[[Any], Any]
_Read = Callable[[Any], _Process | None]


class Prepared:
    """A statement whose values are named binds; an INSERT or UPDATE is given columns to set among them.

    It has no lists (IN), whose text would depend on their length, and no column with a default that Python makes.
    """

    def __init__(self, statement: Statement) -> None:
        self.statement = statement
        self._plans: dict[tuple[str, ...], _Plan] = {}

    def first(self, tx: sa.Connection, params: Params = NOTHING) -> Any | None:
        """The first row as a named tuple, or None."""
        found = self._run(tx, params, _rows)
        return found[0] if found else None

    def every(self, tx: sa.Connection, params: Params = NOTHING) -> list[Any]:
        """All rows as named tuples."""
        return self._run(tx, params, _rows)

    def change(self, tx: sa.Connection, params: Params = NOTHING) -> int:
        """Run an UPDATE or DELETE; how many rows it met."""
        return self._run(tx, params, _count)

    def insert(self, tx: sa.Connection, params: Params = NOTHING) -> int:
        """Run an INSERT of one row; its id."""
        return self._run(tx, params, _new_id)

    def _run(self, tx: sa.Connection, params: Params, answer: Callable[[Any, _Plan], T]) -> T:
        key = (tx.dialect.name, *params)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = _plan(self.statement, tx.dialect, frozenset(params))
        values = plan.values(params)
        cursor = tx.connection.cursor()
        for hears in tx.dispatch.before_cursor_execute:
            hears(tx, cursor, plan.text, values, None, False)
        try:
            cursor.execute(plan.text, values)
            found = answer(cursor, plan)
        except BaseException as exc:
            if isinstance(exc, tx.dialect.loaded_dbapi.Error) or not isinstance(exc, Exception):
                tx._handle_dbapi_exception(exc, plan.text, values, cursor, None)  # as `execute` does
            cursor.close()
            raise
        cursor.close()
        return found


@dataclass(slots=True)
class _Plan:
    """A statement as one driver takes it.

    binds: the text's values in order: the name under which one is given (None: it is built in), how the driver wants
    it, and the built-in value; names: the text's names for them, where it has names. row: makes a row of values; None
    where no rows come. reads: what to make of values of a row, by position, once a cursor has told their types.
    """

    text: str
    names: tuple[str, ...] | None
    binds: tuple[tuple[str | None, _Process | None, Any], ...]
    types: tuple[_Read, ...]
    row: Callable[[Any], Any] | None
    reads: tuple[tuple[int, _Process], ...] | None = None

    def values(self, params: Params) -> Any:
        """What the driver is given with the text."""
        values = [
            built_in if name is None else params[name] if process is None else process(params[name])
            for name, process, built_in in self.binds
        ]
        return values if self.names is None else dict(zip(self.names, values, strict=True))

    def learn(self, cursor: Any) -> tuple[tuple[int, _Process], ...]:
        """`reads`, by what the database says of each column: the same for every execution."""
        found = enumerate(read(column[1]) for read, column in zip(self.types, cursor.description, strict=True))
        self.reads = tuple((at, process) for at, process in found if process is not None)
        return self.reads


def _plan(statement: Statement, dialect: sa.Dialect, given: frozenset[str]) -> _Plan:
    """Raises ValueError when a value that the statement needs is not `given`, or one that it has no use for is."""
    is_query = isinstance(statement, sa.Select)
    if isinstance(statement, sa.Insert):
        columns: list[Any] = []
        if dialect.name == "postgresql":  # the others' drivers know the id anyway
            columns = list(statement.table.primary_key)
            statement = statement.returning(*columns)
    else:
        columns = list(statement.exported_columns)
    compiled: Any = statement.compile(dialect=dialect, column_keys=None if is_query else sorted(given))
    if compiled.post_compile_params or getattr(compiled, "insert_prefetch", ()):
        raise ValueError(f"not to be prepared, for its lists or its columns' defaults: {compiled}")
    binds = {name: bind for bind, name in compiled.bind_names.items()}
    missing = {name for name, bind in binds.items() if bind.required} - given
    if missing or given - set(binds):
        raise ValueError(f"values missing: {sorted(missing)}, of no use: {sorted(given - set(binds))}: {compiled}")
    names = tuple(compiled.positiontup if compiled.positional else binds)
    return _Plan(
        text=str(compiled),
        names=None if compiled.positional else names,
        binds=tuple(_bind(name, binds[name], dialect, given) for name in names),
        types=tuple(partial(column.type.dialect_impl(dialect).result_processor, dialect) for column in columns),
        row=_row_of(columns) if columns else None,
    )


def _row_of(columns: list[sa.ColumnElement[Any]]) -> Callable[[Any], Any]:
    factory: Any = namedtuple
    make: Callable[[Any], Any] = factory("Row", [column.key for column in columns], rename=True)._make
    return make


def _bind(
    name: str, bind: sa.BindParameter[Any], dialect: sa.Dialect, given: frozenset[str]
) -> tuple[str | None, _Process | None, Any]:
    process = bind.type.dialect_impl(dialect).bind_processor(dialect)
    if name in given:
        return name, process, None
    return None, None, bind.effective_value if process is None else process(bind.effective_value)


def _rows(cursor: Any, plan: _Plan) -> list[Any]:
    found = cursor.fetchall()
    make = plan.row or tuple
    reads = plan.learn(cursor) if plan.reads is None else plan.reads
    if not reads:
        return [make(values) for values in found]
    made = []
    for values in map(list, found):
        for at, process in reads:
            values[at] = process(values[at])
        made.append(make(values))
    return made


def _count(cursor: Any, _: _Plan) -> int:
    return int(cursor.rowcount)


def _new_id(cursor: Any, plan: _Plan) -> int:
    return int(cursor.lastrowid if plan.row is None else cursor.fetchone()[0])
