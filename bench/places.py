"""Where a measurement runs: the embedded default, or RabbitMQ and PostgreSQL."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db import migration
from db.session import Database
from tests.functional.harness import seed

QUIET = {"report_interval": 10, "redrive_interval": 10, "periodic_interval": 3600, "verbose": False}


@dataclass(frozen=True, slots=True)
class Place:
    """A directory with a migrated database in it or beside it, and a bus. options: what daemon and API are told."""

    name: str
    directory: Path
    options: dict[str, Any]

    @property
    def database_url(self) -> str:
        """Of the database."""
        return str(self.options.get("sql_connection", f"sqlite:///{self.directory / 'nova.sqlite'}"))

    @property
    def bus_url(self) -> str:
        """Of the bus."""
        return str(self.options.get("transport_url", f"sqlite:///{self.directory / 'bus.sqlite'}"))


@contextmanager
def embedded() -> Iterator[Place]:
    """SQLite and the bus in a file, new."""
    with _directory() as directory:
        place = Place("embedded", directory, dict(QUIET))
        _prepare(place)
        yield place


@contextmanager
def servers(postgresql: str, rabbit: str) -> Iterator[Place]:
    """An empty PostgreSQL database and virtual host, which are left as they are at the end."""
    with _directory() as directory:
        place = Place("RabbitMQ + PostgreSQL", directory, {
            **QUIET, "sql_connection": postgresql, "transport_url": rabbit,
        })  # fmt: skip
        _prepare(place)
        yield place


@contextmanager
def own_servers() -> Iterator[Any]:
    """Private servers, started here; yields a function that makes a Place's URLs."""
    from tests.integration.servers import PostgreSQL, RabbitMQ, running

    with ExitStack() as stack:
        postgresql = stack.enter_context(running(lambda folder: PostgreSQL(folder, ())))
        rabbitmq = stack.enter_context(running(RabbitMQ))
        yield lambda: (postgresql.create_database(), rabbitmq.new_vhost())


def _prepare(place: Place) -> None:
    database = Database(place.database_url)
    migration.sync(database)
    database.run(seed, place.directory)
    database.dispose()


@contextmanager
def _directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="micronova-bench-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
