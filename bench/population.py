"""Many instances at once: rows in the database and guests on a fake host, without going through the API."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from compute.specs import SpecBuilder
from db import work
from db.models import instances
from db.session import Database, Tx
from tests.functional.harness import ADMIN, Deployment
from virt.fake.driver import FakeDriver
from virt.fake.hypervisor import FakeCloud

NAME = "instance-%08x"


def populate(deployment: Deployment, host: str, count: int, cloud: FakeCloud) -> None:
    """Give a host that has no daemon now `count` active instances, each with its guest."""
    ids = insert(deployment.db, host, count)
    spec = SpecBuilder(name_template=NAME, sealer=deployment.api.sealer).build(
        deployment.db.query(work.for_instance, ids[0][0], with_groups=False)
    )
    driver = FakeDriver(cloud)
    driver.init_host(host)
    for instance_id, guest_uuid in ids:
        driver.spawn(replace(spec, id=instance_id, uuid=guest_uuid, name=NAME % instance_id))
    driver.close()


def insert(database: Database, host: str, count: int) -> list[tuple[int, str]]:
    """Rows of `count` active instances of a host, in a transaction for all; their ids and uuids."""

    def write(tx: Tx) -> list[tuple[int, str]]:
        tx.execute(sa.insert(instances), [_row(host, number) for number in range(count)])
        found = tx.execute(sa.select(instances.c.id, instances.c.uuid).where(instances.c.host == host))
        return [(row.id, row.uuid) for row in found]

    return database.run(write)


def _row(host: str, number: int) -> dict[str, Any]:
    return {
        "uuid": str(uuid.uuid4()),
        "display_name": f"bench-{number}",
        "hostname": f"bench-{number}",
        "user_id": ADMIN.user_id or "bench",
        "project_id": ADMIN.project_id or "bench",
        "image_id": 1,
        "instance_type_id": 1,
        "memory_mb": 512,
        "vcpus": 1,
        "local_gb": 0,
        "swap": 0,
        "vm_state": "active",
        "power_state": 1,
        "host": host,
        "launched_on": host,
        "reservation_id": "r-bench",
    }
