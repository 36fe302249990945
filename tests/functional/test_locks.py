"""What hangs on one instance holds up no other, nor the heartbeat, nor the re-drive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from compute.states import Vm
from db import actions, instances, services
from db.session import Tx
from tests.functional.harness import ADMIN, MEMBER, Deployment, eventually

HUNG = 8


class Stopper:
    """Holds up whoever calls, until `go`."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.stopped = 0

    def __call__(self) -> None:
        self.stopped += 1
        self.go.wait(60)


@pytest.fixture
def hanging(deploy: Callable[..., Deployment]) -> Deployment:
    """A host with eight operations that hang, and a ninth guest."""
    cloud = deploy("h1", report_interval=0.2)
    ids = [cloud.boot() for _ in range(HUNG + 1)]
    cloud.drivers["h1"].faults.hang("pause")
    for instance_id in ids[:HUNG]:
        cloud.api.pause(ADMIN, instance_id)
    eventually(lambda: cloud.drivers["h1"].calls["pause"] == HUNG)
    return cloud


@pytest.mark.parametrize("verb", ["reboot", "stop", "suspend", "rescue", "delete"])
def test_another_guests_operation_takes_no_second(hanging: Deployment, verb: str) -> None:
    begun = time.monotonic()
    hanging.done(getattr(hanging.api, verb)(ADMIN, HUNG + 1))
    assert time.monotonic() - begun < 1


def test_a_build_takes_no_second_beside_builds_that_hang(deploy: Callable[..., Deployment]) -> None:
    cloud = deploy("h1", max_concurrent_builds=HUNG + 1)
    stopper = Stopper()
    cloud.drivers["h1"].faults.at("spawn.disks", stopper, times=HUNG)
    stuck = [cloud.boot(wait=False) for _ in range(HUNG)]
    eventually(lambda: stopper.stopped == HUNG)
    begun = time.monotonic()
    cloud.boot()
    assert time.monotonic() - begun < 1
    assert {cloud.instance(one).vm_state for one in stuck} == {Vm.BUILDING}
    stopper.go.set()


def test_heartbeats_go_on(hanging: Deployment) -> None:
    def count() -> int:
        row = hanging.db.query(services.find, "h1", "nova-compute")
        return row.report_count if row else 0

    before = count()
    eventually(lambda: count() >= before + 3, 3)


def test_orders_found_by_the_redrive_do_not_queue_behind_what_hangs(
    one_host: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_host.api.rpc, "cast", lambda *_, **__: False)
    ids = [one_host.boot() for _ in range(HUNG + 1)]
    one_host.drivers["h1"].faults.hang("pause")
    for instance_id in ids[:HUNG]:
        one_host.api.pause(ADMIN, instance_id)
    eventually(lambda: one_host.drivers["h1"].calls["pause"] == HUNG)
    one_host.done(one_host.api.reboot(ADMIN, ids[HUNG]), 2)


def test_a_locked_instance_refuses_its_owner_until_it_is_unlocked(one_host: Deployment) -> None:
    instance_id = one_host.boot(MEMBER)
    one_host.call("h1", "lock_instance", instance_id=instance_id)
    assert one_host.call("h1", "get_lock", instance_id=instance_id)
    with pytest.raises(Exception, match="is locked"):
        one_host.api.pause(MEMBER, instance_id)
    one_host.done(one_host.api.pause(ADMIN, instance_id))
    one_host.call("h1", "unlock_instance", instance_id=instance_id)
    one_host.done(one_host.api.unpause(MEMBER, instance_id))


def test_a_recovery_that_hangs_holds_up_no_other(deploy: Callable[..., Deployment]) -> None:
    cloud = deploy("h1")
    ids = [cloud.boot(), cloud.boot()]
    stopper = Stopper()
    cloud.drivers["h1"].faults.at("get_info", stopper)
    for instance_id in ids:
        cloud.db.run(interrupted, instance_id)
    eventually(lambda: [cloud.instance(one).vm_state for one in ids].count(Vm.PAUSED) == 1)
    stopper.go.set()
    assert {cloud.idle(one).vm_state for one in ids} == {Vm.PAUSED}


def interrupted(tx: Tx, instance_id: int) -> None:
    """A daemon that is no more was pausing it."""
    instances.update(tx, instance_id, task_state="pausing")
    row = {"instance_id": instance_id, "action": "pausing", "step": "pause_instance", "request_id": "r", "args": "{}"}
    also = {"user_id": "", "project_id": "", "host": "h1", "state": "running", "owner": "a former start"}
    actions.create(tx, {**row, **also, "attempt": 1, "deadline": actions.seconds_from_now(tx, 600)})
