"""What a start makes of operations that it finds half done, by what the hypervisor says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from compute import service
from compute.recovery import MAX_ATTEMPTS
from compute.states import Task, Vm
from db import actions, images, instances
from db.models import instance_actions
from db.session import Tx
from tests.functional.crashes import settled
from tests.functional.harness import ADMIN, Deployment, eventually
from virt.power_state import Power

VERBS: dict[Task, str] = {Task.REBOOTING_HARD: "reboot_instance", Task.PAUSING: "pause_instance"}


@pytest.fixture
def cloud(deploy: Callable[..., Deployment], monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """A host with one guest."""
    monkeypatch.setattr(service, "STRAGGLERS_WAIT_S", 0.0)
    made = deploy("h1", graceful_stop_timeout=0)
    made.boot()
    return made


def half_done(tx: Tx, task: Task, attempt: int = 1) -> int:
    """Instance 1 is in the middle of `task`, run by a daemon that is no more."""
    instances.update(tx, 1, task_state=task)
    row = {"instance_id": 1, "action": task, "step": VERBS[task], "request_id": "req-x", "user_id": "", "args": "{}"}
    also = {"project_id": "", "host": "h1", "state": "running", "owner": "a former start", "attempt": attempt}
    return actions.create(tx, {**row, **also, "deadline": actions.seconds_from_now(tx, 600)})


def late(tx: Tx, action_id: int) -> None:
    then = actions.seconds_from_now(tx, -1)
    tx.execute(instance_actions.update().where(instance_actions.c.id == action_id).values(deadline=then))


def outcome(cloud: Deployment, action_id: int) -> Any:
    order = lambda: cloud.db.query(actions.get, action_id)  # noqa: E731 - polled
    eventually(lambda: order().state not in actions.OPEN)
    settled(cloud)
    return order()


def test_an_interrupted_pause_is_done_again(cloud: Deployment) -> None:
    order = outcome(cloud, cloud.db.run(half_done, Task.PAUSING))
    assert (order.state, cloud.instance(1).vm_state) == ("done", Vm.PAUSED)


def test_a_reboot_is_not_done_twice_to_a_guest_that_runs(cloud: Deployment) -> None:
    order = outcome(cloud, cloud.db.run(half_done, Task.REBOOTING_HARD))
    assert (order.state, cloud.drivers["h1"].calls["reboot"]) == ("aborted", 0)
    assert "the guest runs, rebooted or not" in str(cloud.instance(1).fault)


def test_a_guest_that_a_cut_reboot_left_off_is_started(cloud: Deployment) -> None:
    cloud.drivers["h1"].hypervisor.turn("instance-00000001", Power.SHUTOFF)
    order = outcome(cloud, cloud.db.run(half_done, Task.REBOOTING_HARD))
    assert (order.state, cloud.instance(1).power_state) == ("done", Power.RUNNING)


def test_what_was_interrupted_too_often_is_given_up(cloud: Deployment) -> None:
    order = outcome(cloud, cloud.db.run(half_done, Task.PAUSING, MAX_ATTEMPTS))
    assert order.error == f"interrupted {MAX_ATTEMPTS} times; given up"
    assert (cloud.drivers["h1"].calls["pause"], cloud.instance(1).vm_state) == (0, Vm.ACTIVE)


def test_an_order_waits_for_a_hypervisor_that_does_not_answer(cloud: Deployment) -> None:
    faults, calls = cloud.drivers["h1"].faults, cloud.drivers["h1"].calls
    faults.unreachable()
    asked = calls["get_info"]
    action_id = cloud.db.run(half_done, Task.PAUSING)
    eventually(lambda: calls["get_info"] >= asked + 3)
    order = cloud.db.query(actions.get, action_id)
    assert (order.state, order.attempt) == ("running", 1)
    faults.unreachable(cut=False)
    assert outcome(cloud, action_id).state == "done"


def test_a_deadline_ends_the_wait_for_a_hypervisor(cloud: Deployment) -> None:
    cloud.drivers["h1"].faults.unreachable()
    action_id = cloud.db.run(half_done, Task.PAUSING)
    cloud.db.run(late, action_id)
    eventually(lambda: cloud.db.query(actions.get, action_id).state == "aborted")
    assert cloud.instance(1).task_state is None


def test_an_interrupted_snapshot_keeps_neither_record_nor_file(cloud: Deployment) -> None:
    cloud.drivers["h1"].faults.hang("snapshot.done")
    accepted = cloud.api.snapshot(ADMIN, 1, "copy")
    eventually(lambda: list((cloud.directory / "images").glob("0*")))
    cloud.stop("h1")
    old = cloud.drivers.pop("h1")
    cloud.start("h1")
    assert outcome(cloud, accepted.action_id).state == "aborted"
    assert [image.name for image in cloud.db.query(images.list_all)] == ["tiny"]
    assert list((cloud.directory / "images").iterdir()) == []
    old.faults.release()


def test_an_order_that_runs_is_not_taken_for_abandoned(cloud: Deployment) -> None:
    cloud.drivers["h1"].faults.hang("pause")
    cloud.api.pause(ADMIN, 1)
    eventually(lambda: cloud.drivers["h1"].calls["pause"])
    assert cloud.services["h1"].recovery.run() == 0
    cloud.drivers["h1"].faults.release()
    assert cloud.idle(1).vm_state == Vm.PAUSED
