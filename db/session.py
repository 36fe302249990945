"""The engine, and the only place that begins, commits or rolls back.

Repository functions take `tx`, an open SQLAlchemy connection inside a transaction (or an autocommit one for reads),
and never commit. A unit of work is a function given to `Database.run`, which repeats it on a deadlock, a
serialization failure or a lost connection; so it must have no effect outside the database.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from db import sqlite
from db.combine import Combiner
from db.connections import Connections, Loan
from db.errors import DatabaseError, DatabaseUnreachableError, DuplicateRowError
from db.handover import Handover

LOG = logging.getLogger(__name__)
T = TypeVar("T")
Tx = sa.Connection


class _UtcNow(FunctionElement[Any]):
    type = sa.DateTime()
    inherit_cache = True
    name = "utcnow"


_NOW = _UtcNow()


def utcnow() -> FunctionElement[Any]:
    """The database server's clock: naive UTC with microseconds, never the host's. Always the same object."""
    return _NOW


@compiles(_UtcNow, "sqlite")
def _utcnow_sqlite(_element: Any, _compiler: Any, **_kw: Any) -> str:
    return "(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')"


@compiles(_UtcNow, "postgresql")
def _utcnow_postgresql(_element: Any, _compiler: Any, **_kw: Any) -> str:
    return "timezone('utc', clock_timestamp())"


@compiles(_UtcNow, "mysql")
@compiles(_UtcNow, "mariadb")
def _utcnow_mysql(_element: Any, _compiler: Any, **_kw: Any) -> str:
    return "utc_timestamp(6)"


class Database:
    """One engine and its two ways in: `run` for units of work that write, `read` for look-ups."""

    def __init__(
        self,
        url: str,
        *,
        sqlite_synchronous: bool = True,
        max_retries: int = 12,
        retry_interval_s: float = 1.0,
        idle_timeout_s: int = 3600,
        pool_size: int = 10,
    ) -> None:
        self.url = _url(url)
        self._max_retries, self._retry_interval_s = max_retries, retry_interval_s
        self._handover: Handover | None = None
        self._combiner: Combiner | None = None
        if self.url.get_backend_name() == "sqlite":
            self._handover = Handover(self.url.database)
            self._combiner = Combiner(self.transaction, sqlite.BUSY_TIMEOUT_S)
            self.engine = sqlite.engine(self.url, pool_size, self._handover, synchronous=sqlite_synchronous)
            self.reader = sqlite.engine(self.url, pool_size)
        else:
            self.engine = _engine(self.url, idle_timeout_s, pool_size)
            self.reader = _engine(self.url, idle_timeout_s, pool_size, autocommit=True)
        replaced_after_s = math.inf if self._combiner else idle_timeout_s
        self._writers = Connections(self.engine, pool_size, replaced_after_s)
        self._readers = Connections(self.reader, pool_size, replaced_after_s)

    @property
    def dialect(self) -> str:
        """`sqlite`, `postgresql` or `mysql` (MariaDB too)."""
        return "mysql" if self.engine.dialect.name == "mariadb" else self.engine.dialect.name

    def transaction(self) -> AbstractContextManager[Tx]:
        """One attempt at a unit of work: commit at the end, roll back on any error. Prefer `run`."""
        return Loan(self._writers, begins=True, over=self._written)

    def read(self) -> AbstractContextManager[Tx]:
        """A connection for look-ups: each statement sees the latest commit, nothing is locked."""
        return Loan(self._readers, begins=False, over=_translate)

    def _written(self, error: BaseException | None) -> None:
        if self._handover:
            self._handover.ring()
        _translate(error)

    def run(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Do `work(tx, ...)` in a transaction and return what it returns, repeating it while the failure is passing.

        Raises DuplicateRowError on a unique conflict and DatabaseUnreachableError when the retries are used up.
        """
        return self._patiently(self._write, work, args, kwargs)

    def run_single(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """`run` for work of one statement, which commits itself: a server is spared two of three round trips."""
        way = self._write if self._combiner else self._look
        return self._patiently(way, work, args, kwargs)

    def query(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Do `work(tx, ...)` on a read connection, repeated like `run`."""
        return self._patiently(self._look, work, args, kwargs)

    def _write(self, work: Callable[[Tx], T]) -> T:
        if self._combiner:
            return cast(T, self._combiner.run(work))
        with self.transaction() as tx:
            return work(tx)

    def _look(self, work: Callable[[Tx], T]) -> T:
        with self.read() as tx:
            return work(tx)

    def _patiently(self, way: Callable[[Callable[[Tx], T]], T], work: Callable[..., T], args: Any, kwargs: Any) -> T:
        def unit(tx: Tx) -> T:
            return work(tx, *args, **kwargs)

        attempt = 0
        while True:
            try:
                return way(unit)
            except sa.exc.DBAPIError as exc:
                attempt += 1
                self._back_off(exc, attempt)

    def dispose(self) -> None:
        """Close every pooled connection."""
        for kept in (self._writers, self._readers):
            kept.close()
            kept.engine.dispose()
        if self._handover:
            self._handover.close()

    def _back_off(self, exc: sa.exc.DBAPIError, attempt: int) -> None:
        if exc.connection_invalidated or _is_unreachable(exc):
            if attempt > self._max_retries:
                raise DatabaseUnreachableError(
                    f"database {self.url.render_as_string(hide_password=True)}: {_reason(exc)}"
                ) from exc
            delay_s = self._retry_interval_s
        elif _is_conflict(exc) and attempt <= self._max_retries:
            delay_s = 0.01 * 2 ** min(attempt, 6)
        else:
            raise exc
        LOG.debug("database: %s; trying again (%d)", _reason(exc), attempt)
        time.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret


def _url(text: str) -> sa.URL:
    """A database's URL, if there is a way to such a database here. Raises DatabaseError, which shows no password."""
    try:
        url = sa.engine.make_url(text)
    except (sa.exc.ArgumentError, ValueError) as exc:
        raise DatabaseError("sql_connection: not a database's URL, such as sqlite:////var/lib/nova.sqlite") from exc
    try:
        url.get_dialect().import_dbapi()
    except (sa.exc.NoSuchModuleError, ImportError, AttributeError) as exc:
        raise DatabaseError(f"sql_connection: {url.drivername}: {exc}") from exc
    return url


def _engine(url: sa.URL, idle_timeout_s: int, pool_size: int, *, autocommit: bool = False) -> sa.Engine:
    """An engine of one mode for good: to switch a pooled connection's costs two round trips, and fails unwrapped."""
    engine = sa.create_engine(
        url,
        pool_size=pool_size,
        max_overflow=50,
        pool_recycle=idle_timeout_s,
        skip_autocommit_rollback=True,
        isolation_level="AUTOCOMMIT" if autocommit else "READ COMMITTED",
        connect_args={"connect_timeout": 5},
        enable_from_linting=False,  # on MariaDB it takes JOIN ... ON true for an accident
    )
    if url.get_backend_name() in {"mysql", "mariadb"}:
        event.listen(engine, "connect", _mysql_strict)
    return engine


def _mysql_strict(connection: Any, _record: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES'), time_zone = '+00:00'")


def _translate(error: BaseException | None) -> None:
    """Raise what our callers know an error of the database as; nothing for one that is to go on as it is."""
    if isinstance(error, sa.exc.IntegrityError) and _is_duplicate(error):
        raise DuplicateRowError(_reason(error)) from error
    if isinstance(error, sa.exc.DatabaseError) and any(words in str(error.orig) for words in _NO_DATABASE):
        raise DatabaseError(f"database: {error.orig}") from error


_NO_DATABASE = ("file is not a database", "malformed")  # SQLite of a file that is another's, or broken
_DUPLICATE_WORDS = ("unique constraint", "duplicate entry", "duplicate key")
_CONFLICT_CODES = {"40001", "40P01", "55P03"}  # PostgreSQL: serialization failure, deadlock, lock not available
_MYSQL_CONFLICTS = {1205, 1213, 1020}  # lock wait timeout, deadlock, record changed since last read
_MYSQL_GONE = {1040, 1053, 2002, 2003, 2006, 2013, 2014, 4031}


def _is_duplicate(exc: sa.exc.IntegrityError) -> bool:
    return any(words in str(exc.orig).lower() for words in _DUPLICATE_WORDS)


def _is_conflict(exc: sa.exc.DBAPIError) -> bool:
    code = getattr(exc.orig, "sqlstate", None) or _mysql_code(exc)
    return code in _CONFLICT_CODES or code in _MYSQL_CONFLICTS or "database is locked" in str(exc.orig)


def _is_unreachable(exc: sa.exc.DBAPIError) -> bool:
    if not isinstance(exc, sa.exc.OperationalError | sa.exc.InterfaceError):
        return False
    sqlstate = getattr(exc.orig, "sqlstate", None)
    if sqlstate is not None:
        return str(sqlstate)[:2] in {"08", "57"}
    return _mysql_code(exc) in _MYSQL_GONE or "connection" in str(exc.orig).lower()


def _mysql_code(exc: sa.exc.DBAPIError) -> int | None:
    args = getattr(exc.orig, "args", ())
    return args[0] if args and isinstance(args[0], int) else None


def _reason(exc: sa.exc.DBAPIError) -> str:
    return " ".join(str(exc.orig).split())[:300]
