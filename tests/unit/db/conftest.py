"""A migrated database for each test: an SQLite copy, or what `--sql-connection` names, wiped after each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from db import migration
from db.models import instance_types, metadata
from db.session import Database, Tx

SEEDED = 5


def pytest_addoption(parser: pytest.Parser) -> None:
    """tests/integration/test_databases.py runs this folder on real servers by this option."""
    parser.addoption("--sql-connection", help="an empty database to run the repository tests on instead of SQLite")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database at HEAD, closed."""
    path = tmp_path_factory.mktemp("template") / "nova.sqlite"
    made = Database(f"sqlite:///{path}")
    migration.sync(made)
    made.dispose()
    return path


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[Database | None]:
    """The database of `--sql-connection`, migrated; None without the option."""
    url = request.config.getoption("--sql-connection", default=None)
    if url is None:
        yield None
        return
    real = Database(url)
    migration.sync(real)
    yield real
    real.dispose()


@pytest.fixture
def database(request: pytest.FixtureRequest, server: Database | None, tmp_path: Path) -> Iterator[Database]:
    """A migrated database of one's own."""
    if server is not None:
        yield server
        _wipe(server)
        return
    copy = Database(f"sqlite:///{shutil.copy(request.getfixturevalue('template'), tmp_path)}")
    yield copy
    copy.dispose()


@pytest.fixture
def tx(database: Database) -> Iterator[Tx]:
    """A transaction on it, never committed, for tests that need no second one."""
    with database.engine.connect() as transaction:
        transaction.begin()
        yield transaction


def _wipe(server: Database) -> None:
    with server.transaction() as tx:
        for table in reversed(metadata.sorted_tables):
            if table is not instance_types:
                tx.execute(sa.delete(table))
        tx.execute(sa.delete(instance_types).where(instance_types.c.id > SEEDED))
