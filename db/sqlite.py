"""How this service uses SQLite: WAL, transactions begun by us, and one writer at a time who never polls for long."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from db.errors import DatabaseUnreachableError
from db.handover import Handover

BUSY_TIMEOUT_S = 30


def engine(url: sa.URL, pool_size: int, handover: Handover | None = None, *, synchronous: bool = True) -> sa.Engine:
    """An engine on a file that need not exist yet; its directory must.

    With a handover its transactions take the write lock when they begin; without, every statement is a snapshot of
    its own, for look-ups. synchronous: what is committed is on the disk.
    """
    if url.database and not Path(url.database).parent.is_dir():
        raise DatabaseUnreachableError(f"database {url.database}: its directory does not exist")
    made = sa.create_engine(
        url, pool_size=pool_size, max_overflow=50, pool_use_lifo=True, connect_args={"check_same_thread": False}
    )
    event.listen(made, "do_connect", lambda *_: _create_private(url.database))
    event.listen(made, "connect", _set_up)
    if handover is not None:
        event.listen(made, "connect", lambda connection, _: _set_up_writing(connection, synchronous=synchronous))
        # As the dialect's own begin: a listener would make every statement of the engine look for more of them.
        made.dialect.do_begin = lambda connection: _begin(connection, handover)  # type: ignore[method-assign, assignment]
    return made


def _create_private(name: str | None) -> None:
    """Make the file ours alone before SQLite makes it anyone's to read: it holds user data and keys."""
    if name and not Path(name).exists():
        with contextlib.suppress(OSError):  # SQLite says better than we could why it cannot be made
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o600))


def _set_up(connection: sqlite3.Connection, _record: object) -> None:
    """Leave transactions to us, let readers and a writer work side by side, and enforce foreign keys."""
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout={BUSY_TIMEOUT_S * 1000}",
        "journal_mode=WAL",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _set_up_writing(connection: sqlite3.Connection, *, synchronous: bool) -> None:
    connection.execute("PRAGMA busy_timeout=0")  # from here on _begin waits
    connection.execute(
        f"PRAGMA synchronous={'FULL' if synchronous else 'NORMAL'}"
    )  # the log, with each commit or later


def _begin(connection: Any, handover: Handover) -> None:
    """Take the write lock at once: an upgrade from a read lock fails under load, this waits its turn.

    Readers never begin: each SELECT is its own snapshot and takes no lock.
    """
    until = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            handover.wait()
        else:
            return
