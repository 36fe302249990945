"""The engine, and the only place that begins, commits or rolls back.

Repository functions take `tx`, an open SQLAlchemy connection inside a transaction (or an autocommit one for reads),
and never commit. A unit of work is a function given to `Database.run`, which repeats it on a deadlock, a
serialization failure or a lost connection; so it must have no effect outside the database.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from db.errors import DatabaseUnreachableError, DuplicateRowError

LOG = logging.getLogger(__name__)
T = TypeVar("T")
Tx = sa.Connection
BUSY_TIMEOUT_S = 30
BUSY_PAUSE_S = 0.0004


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
        max_retries: int = 12,
        retry_interval_s: float = 1.0,
        idle_timeout_s: int = 3600,
        pool_size: int = 10,
    ) -> None:
        self.url = sa.engine.make_url(url)
        self._turn: AbstractContextManager[None] = _Turn() if self.url.get_backend_name() == "sqlite" else nullcontext()
        self._max_retries, self._retry_interval_s = max_retries, retry_interval_s
        self.engine = _engine(self.url, idle_timeout_s, pool_size)
        self.reader = _engine(self.url, idle_timeout_s, pool_size, autocommit=True)

    @property
    def dialect(self) -> str:
        """`sqlite`, `postgresql` or `mysql` (MariaDB too)."""
        return "mysql" if self.engine.dialect.name == "mariadb" else self.engine.dialect.name

    @contextmanager
    def transaction(self) -> Iterator[Tx]:
        """One attempt at a unit of work: commit at the end, roll back on any error. Prefer `run`."""
        with _translated(), self._turn, self.engine.begin() as tx:
            yield tx

    @contextmanager
    def read(self) -> Iterator[Tx]:
        """A connection for look-ups: each statement sees the latest commit, nothing is locked."""
        with _translated(), self.reader.connect() as tx:
            yield tx

    def run(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Do `work(tx, ...)` in a transaction and return what it returns, repeating it while the failure is passing.

        Raises DuplicateRowError on a unique conflict and DatabaseUnreachableError when the retries are used up.
        """
        return self._patiently(self.transaction, work, args, kwargs)

    def run_single(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """`run` for work of one statement, which commits itself: a server is spared two of three round trips."""
        way = self.transaction if self.dialect == "sqlite" else self.read
        return self._patiently(way, work, args, kwargs)

    def query(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Do `work(tx, ...)` on a read connection, repeated like `run`."""
        return self._patiently(self.read, work, args, kwargs)

    def _patiently(
        self, way: Callable[[], AbstractContextManager[Tx]], work: Callable[..., T], args: Any, kwargs: Any
    ) -> T:
        attempt = 0
        while True:
            try:
                with way() as tx:
                    return work(tx, *args, **kwargs)
            except sa.exc.DBAPIError as exc:
                attempt += 1
                self._back_off(exc, attempt)

    def dispose(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()
        self.reader.dispose()

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


class _Turn:
    """One writer at a time among the threads of this process, which hand over faster than SQLite's file locks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=BUSY_TIMEOUT_S):
            raise DatabaseUnreachableError(f"this process has been writing to SQLite for {BUSY_TIMEOUT_S} s")

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _engine(url: sa.URL, idle_timeout_s: int, pool_size: int, *, autocommit: bool = False) -> sa.Engine:
    """An engine of one mode for good: to switch a pooled connection's costs two round trips, and fails unwrapped."""
    if url.get_backend_name() == "sqlite":
        return _sqlite_engine(url, pool_size, autocommit=autocommit)
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


def _sqlite_engine(url: sa.URL, pool_size: int, *, autocommit: bool) -> sa.Engine:
    if url.database and not Path(url.database).parent.is_dir():
        raise DatabaseUnreachableError(f"database {url.database}: its directory does not exist")
    engine = sa.create_engine(
        url, pool_size=pool_size, max_overflow=50, pool_use_lifo=True, connect_args={"check_same_thread": False}
    )
    event.listen(engine, "do_connect", lambda *_: _create_private(url.database))
    event.listen(engine, "connect", _sqlite_connect)
    if not autocommit:
        event.listen(engine, "connect", _sqlite_impatient)
        # As the dialect's own begin: a listener would make every statement of the engine look for more of them.
        engine.dialect.do_begin = _sqlite_begin  # type: ignore[method-assign]
    return engine


def _create_private(name: str | None) -> None:
    """Make the file ours alone before SQLite makes it anyone's to read: it holds user data and keys."""
    if name and not Path(name).exists():
        with contextlib.suppress(OSError):  # SQLite says better than we could why it cannot be made
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o600))


def _sqlite_connect(connection: sqlite3.Connection, _record: object) -> None:
    """Leave transactions to us, let readers and a writer work side by side, and enforce foreign keys."""
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout={BUSY_TIMEOUT_S * 1000}",
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _sqlite_impatient(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA busy_timeout=0")  # from here on _sqlite_begin waits


def _sqlite_begin(dbapi_connection: Any) -> None:
    """Take the write lock at once: an upgrade from a read lock fails under load, this waits its turn.

    Readers never begin: each SELECT is its own snapshot and takes no lock. Here only other processes are waited for:
    SQLite's own waiting backs off to 100 ms a turn, and by then the lock has changed hands a hundred times.
    """
    until = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            dbapi_connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(BUSY_PAUSE_S * (0.5 + random.random()))  # noqa: S311 - only to fall out of step
        else:
            return


def _mysql_strict(connection: Any, _record: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES'), time_zone = '+00:00'")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sa.exc.IntegrityError as exc:
        if _is_duplicate(exc):
            raise DuplicateRowError(_reason(exc)) from exc
        raise


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
