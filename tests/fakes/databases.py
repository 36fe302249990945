"""Databases for tests: a SQLite file at our revision, copied from one that was migrated once."""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path

from db import instances, migration
from db.session import Database


@functools.cache
def _template() -> Path:
    path = Path(tempfile.mkdtemp(prefix="micronova-template-")) / "nova.sqlite"
    database = Database(f"sqlite:///{path}")
    migration.sync(database)
    with database.transaction() as tx:
        tx.exec_driver_sql("SELECT 1")
    database.dispose()
    return path


def a_database(directory: Path) -> Database:
    """A database of one's own under `directory`, with the five seeded instance types."""
    shutil.copy(_template(), directory / "nova.sqlite")
    return Database(f"sqlite:///{directory / 'nova.sqlite'}")


def an_instance(db: Database, **changes: object) -> int:
    """Insert an active instance of project `lab` and return its id."""
    number = db.query(lambda tx: len(instances.list_all(tx, read_deleted=True))) + 1
    values: dict[str, object] = {
        "uuid": f"00000000-0000-4000-8000-{number:012d}",
        "display_name": f"server-{number}",
        "hostname": f"server-{number}",
        "user_id": "anna",
        "project_id": "lab",
        "instance_type_id": 2,
        "memory_mb": 2048,
        "vcpus": 1,
        "local_gb": 20,
        "vm_state": "active",
        "power_state": 1,
        "host": "host1",
        "reservation_id": f"r-{number:08d}",
    }
    return db.run(instances.create, {**values, **changes})
