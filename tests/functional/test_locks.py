"""What hangs on one instance holds up no other, nor the heartbeat, nor the re-drive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from compute.states import Vm
from db import services
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


def test_orders_found_by_the_redrive_do_not_queue_behind_what_hangs(hanging: Deployment) -> None:
    hanging.api.rpc.cast = lambda *_, **__: False  # type: ignore[method-assign]
    hanging.done(hanging.api.reboot(ADMIN, HUNG + 1), 2)


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
    cloud = deploy("h1", graceful_stop_timeout=0)
    first, second = cloud.boot(), cloud.boot()
    cloud.drivers["h1"].faults.hang("pause")
    for one in (first, second):
        cloud.api.pause(ADMIN, one)
    eventually(lambda: cloud.drivers["h1"].calls["pause"] == 2)
    cloud.stop("h1")
    old = cloud.drivers.pop("h1")
    fresh = type(old)(cloud.cloud)
    cloud.drivers["h1"] = fresh
    stopper = Stopper()
    fresh.faults.at("get_info", stopper)
    cloud.start("h1")
    eventually(lambda: [cloud.instance(one).vm_state for one in (first, second)].count(Vm.PAUSED) == 1)
    stopper.go.set()
    old.faults.release()
    assert {cloud.idle(one).vm_state for one in (first, second)} == {Vm.PAUSED}
