"""Deadlines: what nobody takes, what hangs and what a dead host held ends as failed, and gives back what is free."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from compute.states import Vm
from db import actions, images, instances, networks, resizes, services, volumes
from db.models import instance_actions
from db.models import services as services_table
from db.session import Tx
from tests.functional.crashes import settled, unsound
from tests.functional.harness import ADMIN, Deployment, eventually


def past(tx: Tx, action_id: int) -> None:
    """The order's deadline has passed."""
    then = actions.seconds_from_now(tx, -5)
    tx.execute(instance_actions.update().where(instance_actions.c.id == action_id).values(deadline=then))


def silent(tx: Tx, host: str) -> None:
    """The host's daemon has not reported for an hour."""
    then = actions.seconds_from_now(tx, -3600)
    tx.execute(services_table.update().where(services_table.c.host == host).values(heartbeat_at=then))


@pytest.fixture
def pair(deploy: Callable[..., Deployment]) -> Deployment:
    """Two hosts; h2 ends other hosts' orders."""
    return deploy("h1", "h2", graceful_stop_timeout=0)


def lost(cloud: Deployment, order: Callable[[], Any]) -> int:
    """Place an order for h1, whose daemon is away, and let its deadline pass."""
    cloud.stop("h1")
    row = cloud.db.query(services.find, "h1", "nova-compute")
    assert row is not None
    cloud.db.run(services.take_over, row.id, "a daemon that looks alive")
    accepted = order()
    cloud.db.run(past, accepted.action_id)
    eventually(lambda: cloud.db.query(actions.get, accepted.action_id).state == "failed", what="failed")
    return int(accepted.instance_id)


def test_a_build_that_no_host_took_fails_and_gives_everything_back(pair: Deployment) -> None:
    instance_id = lost(pair, lambda: pair.api.create(ADMIN, image="tiny", instance_type="m1.tiny", host="h1")[0])
    row = pair.instance(instance_id)
    assert (row.vm_state, row.host, row.task_state) == (Vm.ERROR, None, None)
    assert "nobody took it before its deadline" in str(row.fault)
    assert pair.db.query(networks.addresses_of, [instance_id]) == []
    assert unsound(pair) == []


@pytest.mark.parametrize("verb", ["pause", "stop", "reboot", "rescue"])
def test_an_order_that_no_host_took_leaves_the_instance_as_it_was(pair: Deployment, verb: str) -> None:
    instance_id = pair.boot(host="h1")
    lost(pair, lambda: getattr(pair.api, verb)(ADMIN, instance_id))
    assert (pair.instance(instance_id).vm_state, pair.instance(instance_id).host) == (Vm.ACTIVE, "h1")


def test_a_snapshot_that_no_host_took_leaves_no_image(pair: Deployment) -> None:
    instance_id = pair.boot(host="h1")
    lost(pair, lambda: pair.api.snapshot(ADMIN, instance_id, "copy"))
    assert [image.name for image in pair.db.query(images.list_all)] == ["tiny"]


def test_a_volume_whose_attaching_no_host_took_is_free(pair: Deployment) -> None:
    instance_id = pair.boot(host="h1")
    facts: dict[str, Any] = {"status": "available", "provider_location": "file:/v"}
    volume_id = pair.db.run(volumes.create, user_id="admin", project_id="admin", size=1, **facts)
    lost(pair, lambda: pair.api.attach_volume(ADMIN, instance_id, volume_id, "/dev/vdb"))
    assert pair.db.query(volumes.get, volume_id).status == "available"


def test_a_resize_to_a_host_that_died_gives_its_room_back(pair: Deployment) -> None:
    instance_id = pair.boot(host="h2")
    lost(pair, lambda: pair.api.resize(ADMIN, instance_id, "m1.small"))
    move = pair.db.query(resizes.latest, instance_id)
    assert move is not None
    assert (move.status, pair.instance(instance_id).vm_state) == ("error", Vm.ACTIVE)
    assert unsound(pair) == []


def test_a_resize_whose_destination_dies_goes_back_to_its_source(pair: Deployment) -> None:
    instance_id = pair.boot(host="h2")
    reached, faults = pair.drivers["h2"].calls, pair.drivers["h2"].faults
    faults.hang("migrate_disk_and_power_off")
    accepted = pair.api.resize(ADMIN, instance_id, "m1.small")
    eventually(lambda: reached["migrate_disk_and_power_off"])
    pair.stop("h1")
    faults.release()
    eventually(lambda: pair.db.query(actions.get, accepted.action_id).step == "finish_resize")
    pair.db.run(past, accepted.action_id)
    assert "nobody took it" in str(pair.idle(instance_id).fault)
    assert (pair.instance(instance_id).vm_state, pair.instance(instance_id).host) == (Vm.ACTIVE, "h2")
    settled(pair)


def test_an_operation_past_its_deadline_stops_at_its_next_step(one_host: Deployment) -> None:
    faults = one_host.drivers["h1"].faults
    faults.hang("spawn.disks")
    instance_id = one_host.boot(wait=False)
    job = eventually(one_host.services["h1"].host.tasks.running)[0]
    one_host.db.run(past, job.action.id)
    eventually(lambda: job.cancelled)
    faults.release()
    assert "its deadline of 3600 s passed" in str(one_host.idle(instance_id).fault)
    settled(one_host)


def test_an_operation_that_hangs_past_its_deadline_is_failed_without_it(one_host: Deployment) -> None:
    instance_id = one_host.boot()
    faults = one_host.drivers["h1"].faults
    faults.hang("pause")
    accepted = one_host.api.pause(ADMIN, instance_id)
    eventually(lambda: one_host.drivers["h1"].calls["pause"])
    one_host.db.run(past, accepted.action_id)
    assert "its deadline of 600 s passed" in str(one_host.idle(instance_id).fault)
    one_host.done(one_host.api.reboot(ADMIN, instance_id))


def test_a_straggler_does_not_end_a_later_operation_of_the_same_kind(one_host: Deployment) -> None:
    instance_id = one_host.boot()
    driver = one_host.drivers["h1"]
    driver.faults.hang("reboot")
    first = one_host.api.reboot(ADMIN, instance_id)
    job = eventually(one_host.services["h1"].host.tasks.running)[0]
    one_host.db.run(past, first.action_id)
    one_host.idle(instance_id)
    second = one_host.api.reboot(ADMIN, instance_id)
    eventually(lambda: driver.calls["reboot"] == 2)
    held = one_host.db.query(actions.get, second.action_id)
    one_host.services["h1"].host.tasks.settling.fail(job, RuntimeError("late"))
    assert one_host.instance(instance_id).task_state == "rebooting_hard"
    assert one_host.db.query(actions.get, second.action_id) == held


def test_a_build_that_hangs_past_its_deadline_keeps_what_it_may_use(one_host: Deployment) -> None:
    faults = one_host.drivers["h1"].faults
    faults.hang("spawn.start")
    instance_id = one_host.boot(wait=False)
    job = eventually(one_host.services["h1"].host.tasks.running)[0]
    one_host.db.run(past, job.action.id)
    row = one_host.idle(instance_id)
    assert (row.vm_state, row.host) == (Vm.ERROR, "h1")
    assert one_host.db.query(networks.addresses_of, [instance_id])
    faults.release()
    one_host.done(one_host.api.delete(ADMIN, instance_id))
    settled(one_host)


def test_an_operation_of_a_dead_host_is_failed_by_another(pair: Deployment) -> None:
    instance_id = pair.boot(host="h1")
    pair.drivers["h1"].faults.hang("pause")
    accepted = pair.api.pause(ADMIN, instance_id)
    eventually(lambda: pair.drivers["h1"].calls["pause"])
    pair.stop("h1")
    pair.db.run(past, accepted.action_id)
    pair.db.run(silent, "h1")
    assert "the daemon of h1 is silent" in str(pair.idle(instance_id).fault)
    assert pair.db.query(services.find, "h1", "nova-compute") is not None
    assert pair.instance(instance_id).host == "h1"


def test_an_order_that_is_taken_at_its_deadline_is_left_to_its_taker(one_host: Deployment) -> None:
    from compute import expiry

    instance_id = one_host.boot()
    one_host.drivers["h1"].faults.hang("pause")
    accepted = one_host.api.pause(ADMIN, instance_id)
    seen = one_host.db.query(actions.get, accepted.action_id)
    eventually(lambda: one_host.drivers["h1"].calls["pause"])
    stale = seen if seen.state == "requested" else None
    assert stale is None or not one_host.db.run(expiry.fail_unclaimed, stale, "late")
    assert one_host.instance(instance_id).task_state == "pausing"
    assert one_host.db.query(instances.get, instance_id).fault is None
