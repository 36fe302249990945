"""Services and compute nodes: registration, heartbeat by the database's clock, and the recount of claims."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa

from db import compute_nodes, instance_types, instances, resizes, services
from db.models import services as table
from db.session import Tx
from tests.unit.db.db_builders import an_instance

TOTALS = {"vcpus": 8, "memory_mb": 16000, "local_gb": 100}


def a_service(tx: Tx, host: str = "h1") -> int:
    return services.create(
        tx, {"host": host, "binary": "nova-compute", "topic": "compute", "availability_zone": "nova"}
    )


def test_a_service_that_never_reported_has_no_age(tx: Tx) -> None:
    a_service(tx)
    (live,) = services.list_all(tx, host="h1")
    assert (live.age_s, live.service.report_count) == (None, 0)


def test_only_the_owner_of_a_service_keeps_it_alive(tx: Tx) -> None:
    service_id = a_service(tx)
    services.take_over(tx, service_id, "start-2")
    assert not services.heartbeat(tx, service_id, "start-1")
    assert services.heartbeat(tx, service_id, "start-2")
    (live,) = services.list_all(tx)
    assert live.service.report_count == 1
    assert live.age_s is not None
    assert 0 <= live.age_s < 5


def test_a_service_that_is_silent_for_days_is_that_old(tx: Tx) -> None:
    service_id = a_service(tx)
    services.take_over(tx, service_id, "start")
    beat = tx.execute(sa.select(table.c.heartbeat_at)).scalar_one()
    tx.execute(sa.update(table).values(heartbeat_at=beat - timedelta(days=1, seconds=5)))
    (live,) = services.list_all(tx)
    assert live.age_s is not None
    assert live.age_s > 86400


def test_a_clean_stop_is_seen_at_once(tx: Tx) -> None:
    service_id = a_service(tx)
    services.take_over(tx, service_id, "start")
    services.sign_off(tx, service_id, "another start")
    assert services.list_all(tx)[0].age_s is not None
    services.sign_off(tx, service_id, "start")
    assert services.list_all(tx)[0].age_s is None


def test_a_destroyed_service_takes_its_node_with_it(tx: Tx) -> None:
    service_id = a_service(tx)
    compute_nodes.report(tx, service_id, "h1", TOTALS)
    services.destroy(tx, service_id)
    assert services.find(tx, "h1", "nova-compute") is None
    assert compute_nodes.find(tx, "h1") is None


def test_a_report_recounts_what_drifted(tx: Tx) -> None:
    service_id = a_service(tx)
    compute_nodes.report(tx, service_id, "h1", TOTALS)
    instance_id = an_instance(tx)
    instances.update(tx, instance_id, host="h1")
    row = instances.get(tx, instance_id)
    compute_nodes.report(tx, service_id, "h1", TOTALS)
    node = compute_nodes.find(tx, "h1")
    assert node is not None
    assert (node.vcpus_used, node.memory_mb_used, node.running_vms) == (row.vcpus, row.memory_mb, 1)


def test_a_report_counts_the_new_size_of_a_guest_that_is_on_its_way(tx: Tx) -> None:
    service_id = a_service(tx, "h2")
    big = instance_types.create(tx, name="big", flavorid="99", memory_mb=4096, vcpus=3, local_gb=0)
    instance_id = an_instance(tx)
    instances.update(tx, instance_id, host="h1")
    resizes.create(
        tx, instance_id=instance_id, kind="resize", source_compute="h1", dest_compute="h2", status="migrating",
        new_flavor_id=big,
    )  # fmt: skip
    compute_nodes.report(tx, service_id, "h2", TOTALS)
    node = compute_nodes.find(tx, "h2")
    assert node is not None
    assert (node.vcpus_used, node.memory_mb_used) == (3, 4096)


def test_a_claim_takes_the_last_room_and_no_more(tx: Tx) -> None:
    service_id = a_service(tx)
    compute_nodes.report(tx, service_id, "h1", TOTALS)
    size = {"vcpus": 4, "memory_mb": 8000, "local_gb": 10}
    assert [compute_nodes.claim(tx, "h1", **size) for _ in range(3)] == [True, True, False]
    compute_nodes.release(tx, "h1", **size)
    assert compute_nodes.claim(tx, "h1", **size)
