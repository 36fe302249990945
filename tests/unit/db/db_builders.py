"""Rows with defaults: a test names only what it is about. Each returns the new row's id."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from db import images, instances, networks, security_groups, volumes
from db.session import Database, Tx

MAC = "02:16:3e:00:00:01"


def an_instance(tx: Tx, **changes: Any) -> int:
    """An active m1.tiny on host1, of user ann in project lab."""
    unique = str(uuid.uuid4())
    values = {"uuid": unique, "display_name": "web", "hostname": "web", "user_id": "ann", "project_id": "lab"}
    values |= {"instance_type_id": 1, "memory_mb": 512, "vcpus": 1, "local_gb": 0}
    values |= {"vm_state": "active", "host": "host1", "reservation_id": "r-1"}
    return instances.create(tx, values | changes)


def an_image(tx: Tx, **changes: Any) -> int:
    """A public, active raw image."""
    values = {"name": "cirros", "status": "active", "disk_format": "raw", "location": "/images/cirros"}
    return images.create(tx, **(values | {"is_public": True} | changes))


def a_network(tx: Tx, **changes: Any) -> int:
    """A network of no project with five addresses to give, 10.0.0.2 to 10.0.0.6."""
    return networks.create(tx, **({"label": "private", "cidr": "10.0.0.0/29", "bridge": "br100"} | changes))


def a_group(tx: Tx, **changes: Any) -> int:
    """A security group without rules, of user ann in project lab."""
    values = {"name": "web", "description": "", "user_id": "ann", "project_id": "lab"}
    return security_groups.create(tx, **(values | changes))


def a_volume(tx: Tx, **changes: Any) -> int:
    """An available volume of 1 GiB, of user ann in project lab."""
    values = {"user_id": "ann", "project_id": "lab", "size": 1, "status": "available"}
    return volumes.create(tx, **(values | changes))


@contextmanager
def counted(database: Database) -> Iterator[list[str]]:
    """The statements sent meanwhile."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    for engine in (database.engine, database.reader):
        event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        for engine in (database.engine, database.reader):
            event.remove(engine, "before_cursor_execute", note)
