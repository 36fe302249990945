"""The schema's version: bring a database to a revision, say which it has, refuse one that does not fit this code."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import sqlalchemy as sa

from db.errors import SchemaVersionError
from db.session import Database, Tx

if TYPE_CHECKING:
    import sqlite3

    from alembic.config import Config

LOG = logging.getLogger(__name__)
HEAD = "0001"
SCRIPTS = "db:migrations"

_LOCK_ID = 0x6E6F7661  # any number that every release agrees on
_LOCK_PATIENCE_S = 600
_VERSION = sa.text("SELECT version_num FROM alembic_version")
_NO_TABLE = re.compile(r"no such table|relation .* does not exist|table .* doesn't exist", re.IGNORECASE)


def sync(database: Database, revision: str = "head") -> None:
    """Upgrade to `revision`; nothing happens when the database is there. Two at a time take turns, on every server.

    All or nothing on SQLite and PostgreSQL; MariaDB commits each table as it goes. Raises SchemaVersionError when
    the database is at a revision that this code does not know.
    """
    _migrate(database, "upgrade", revision)


def downgrade(database: Database, revision: str) -> None:
    """Go back to `revision`, losing what it has no place for; `base` drops everything."""
    _migrate(database, "downgrade", revision)


def version(database: Database) -> str | None:
    """The revision that the database is at; None when it was never synced. One statement."""
    try:
        found: str | None = database.query(lambda tx: tx.execute(_VERSION).scalar())
    except (sa.exc.ProgrammingError, sa.exc.OperationalError) as exc:
        if not _NO_TABLE.search(str(exc.orig)):
            raise
        return None
    return found


def check(database: Database) -> None:
    """Raise SchemaVersionError unless the database is at this code's revision. One statement, nothing imported."""
    found = version(database)
    if found != HEAD:
        raise SchemaVersionError(
            f"the database is at revision {found or 'none'}, this code needs {HEAD}: run nova-manage db sync"
        )


def draft(database: Database, message: str) -> str:
    """Write the next revision, from how the tables differ from a database at HEAD; returns its path.

    For developers: read what it wrote, then set HEAD.
    """
    from alembic import command

    with _exclusive(database) as tx:
        script = command.revision(_config(tx), message, autogenerate=True, rev_id=f"{int(HEAD) + 1:04d}")
    return str(getattr(script, "path", script))


def _migrate(database: Database, direction: str, revision: str) -> None:
    from alembic import command  # 0.1 s that a daemon's start does not pay
    from alembic.util import CommandError

    move = {"upgrade": command.upgrade, "downgrade": command.downgrade}[direction]
    before = version(database)
    try:
        with _exclusive(database) as tx:
            move(_config(tx), revision)
    except CommandError as exc:
        raise SchemaVersionError(f"cannot {direction} the database from revision {before or 'none'}: {exc}") from exc
    LOG.info("database: revision %s, was %s", version(database) or "none", before or "none")


def _config(tx: Tx) -> Config:
    from alembic.config import Config

    config = Config(attributes={"connection": tx})
    config.set_main_option("script_location", SCRIPTS)
    config.set_main_option("path_separator", "os")
    return config


@contextmanager
def _exclusive(database: Database) -> Iterator[Tx]:
    """A transaction while which no one else migrates this database."""
    enter = {"sqlite": _without_foreign_keys, "postgresql": _advised, "mysql": _named}[database.dialect]
    with database.engine.connect() as tx, enter(tx):
        yield tx


@contextmanager
def _without_foreign_keys(tx: Tx) -> Iterator[None]:
    """BEGIN IMMEDIATE is the lock. A table is altered by copying it, which foreign keys would not survive."""
    raw = cast("sqlite3.Connection", tx.connection.driver_connection)  # a pragma within a transaction has no effect
    raw.execute("PRAGMA foreign_keys=OFF")
    try:
        with tx.begin():
            yield
            broken = tx.exec_driver_sql("PRAGMA foreign_key_check").all()
            if broken:
                raise SchemaVersionError(f"the migration would leave {len(broken)} dangling references")
    finally:
        raw.execute("PRAGMA foreign_keys=ON")


@contextmanager
def _advised(tx: Tx) -> Iterator[None]:
    with tx.begin():
        tx.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_ID})
        yield


@contextmanager
def _named(tx: Tx) -> Iterator[None]:
    """A lock of the session, because DDL ends transactions here: it goes with the connection, after the commit."""
    tx.detach()
    with tx.begin():
        wanted = {"name": f"schema.{tx.engine.url.database}"[:64], "patience": _LOCK_PATIENCE_S}
        if tx.execute(sa.text("SELECT GET_LOCK(:name, :patience)"), wanted).scalar() != 1:
            raise SchemaVersionError(f"another migration holds the database for over {_LOCK_PATIENCE_S} s")
        yield
