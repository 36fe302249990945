"""Where a measurement runs: the embedded default, or RabbitMQ and PostgreSQL."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from db import migration
from db.session import Database
from tests.functional.harness import seed

QUIET = {"report_interval": 10, "redrive_interval": 10, "periodic_interval": 3600, "verbose": False}


@dataclass(frozen=True, slots=True)
class Place:
    """A migrated database and a bus, and a directory for what a daemon keeps."""

    name: str
    directory: Path
    database_url: str
    bus_url: str

    @property
    def options(self) -> dict[str, Any]:
        """What a daemon and an API are told."""
        return {**QUIET, "sql_connection": self.database_url, "transport_url": self.bus_url}

    def room(self, name: str) -> Place:
        """The same place with a directory of its own, for another host."""
        directory = self.directory / name
        directory.mkdir()
        return replace(self, directory=directory)


@contextmanager
def embedded() -> Iterator[Place]:
    """SQLite and the bus in a file, new."""
    with _directory() as directory:
        yield _prepared(
            "embedded", directory, f"sqlite:///{directory}/nova.sqlite", f"sqlite:///{directory}/bus.sqlite"
        )


@contextmanager
def servers(postgresql: str, rabbit: str) -> Iterator[Place]:
    """An empty PostgreSQL database and virtual host, which are left as they are at the end."""
    with _directory() as directory:
        yield _prepared("RabbitMQ + PostgreSQL", directory, postgresql, rabbit)


@contextmanager
def own_servers() -> Iterator[Any]:
    """Private servers, started here; yields a function that makes a Place's URLs."""
    from tests.integration.servers import PostgreSQL, RabbitMQ, running

    with ExitStack() as stack:
        postgresql = stack.enter_context(running(lambda folder: PostgreSQL(folder, ())))
        rabbitmq = stack.enter_context(running(RabbitMQ))
        yield lambda: (postgresql.create_database(), rabbitmq.new_vhost())


def _prepared(name: str, directory: Path, database_url: str, bus_url: str) -> Place:
    database = Database(database_url)
    migration.sync(database)
    database.run(seed, directory)
    database.dispose()
    return Place(name, directory, database_url, bus_url)


@contextmanager
def _directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="micronova-bench-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
