"""What somebody with a database client does: write an instance's row by hand, as 2011.2's API did before its cast."""

from __future__ import annotations

import uuid
from typing import Any

import sqlalchemy as sa

_ROW: dict[str, Any] = {
    "display_name": "outside",
    "hostname": "outside",
    "user_id": "ann",
    "project_id": "blue",
    "memory_mb": 512,
    "vcpus": 1,
    "local_gb": 0,
    "vm_state": "building",
    "task_state": "scheduling",
    "reservation_id": "r-outside0",
}


def insert_instance(url: str, **columns: Any) -> int:
    """The id of a new row that waits to be built from image `tiny`."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        found = "(SELECT id FROM images WHERE name = 'tiny')", "(SELECT id FROM instance_types WHERE name = 'm1.tiny')"
        values = {"uuid": str(uuid.uuid4()), **_ROW, **columns}
        names, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
        statement = f"INSERT INTO instances (image_id, instance_type_id, created_at, {names}) " + (
            f"VALUES ({found[0]}, {found[1]}, CURRENT_TIMESTAMP, {marks})"
        )
        connection.execute(sa.text(statement), values)
        key = connection.execute(sa.text("SELECT max(id) FROM instances WHERE uuid = :uuid"), values).scalar_one()
    engine.dispose()
    return int(key)
