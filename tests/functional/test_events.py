"""What happens to a guest by itself is in its record at once, by the rules of the sync."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from compute import events
from compute.states import Task, Vm
from db import instances
from tests.functional.harness import ADMIN, Deployment, eventually
from virt.errors import HypervisorUnreachableError
from virt.power_state import Power


@pytest.fixture
def alert(deploy: Callable[..., Deployment]) -> Deployment:
    """One host that hears its events, and never syncs by the clock."""
    return deploy("h1", lifecycle_events=True, redrive_interval=3600, report_interval=3600)


def turn(cloud: Deployment, instance_id: int, power: Power) -> None:
    cloud.drivers["h1"].hypervisor.turn(f"instance-{instance_id:08x}", power)


def tell(cloud: Deployment, uuid: str | None) -> None:
    told = cloud.drivers["h1"].hypervisor.told
    assert told is not None
    told(uuid)


def power_of(cloud: Deployment, instance_id: int) -> tuple[str, int]:
    row = cloud.instance(instance_id)
    return row.vm_state, row.power_state


@pytest.mark.parametrize(
    ("power", "vm_state"),
    [(Power.SHUTOFF, Vm.STOPPED), (Power.CRASHED, Vm.STOPPED), (Power.PAUSED, Vm.PAUSED)],
)
def test_a_guest_that_changes_by_itself_is_recorded_at_once(alert: Deployment, power: Power, vm_state: Vm) -> None:
    instance_id = alert.boot()
    turn(alert, instance_id, power)
    eventually(lambda: power_of(alert, instance_id) == (vm_state, power), 5)
    turn(alert, instance_id, Power.RUNNING)
    eventually(lambda: power_of(alert, instance_id) == (Vm.ACTIVE, Power.RUNNING), 5)


def test_an_event_is_no_fact(alert: Deployment) -> None:
    instance_id = alert.boot()
    listings = alert.drivers["h1"].calls["list_guests"]
    tell(alert, alert.instance(instance_id).uuid)
    eventually(lambda: alert.drivers["h1"].calls["list_guests"] > listings, 5)
    assert power_of(alert, instance_id) == (Vm.ACTIVE, Power.RUNNING)


def test_a_burst_of_events_is_few_looks(alert: Deployment) -> None:
    ids = [alert.boot() for _ in range(4)]
    listings = alert.drivers["h1"].calls["list_guests"]
    for _ in range(25):
        for instance_id in ids:
            turn(alert, instance_id, Power.PAUSED)
    eventually(lambda: {power_of(alert, one) for one in ids} == {(Vm.PAUSED, Power.PAUSED)}, 5)
    assert alert.drivers["h1"].calls["list_guests"] - listings <= 10


def test_a_guest_that_a_task_holds_is_looked_at_when_the_task_is_over(
    alert: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "LOOK_AGAIN_S", (0.2,) * 20)
    instance_id = alert.boot()
    alert.db.run(instances.update, instance_id, task_state=Task.SNAPSHOTTING)
    turn(alert, instance_id, Power.SHUTOFF)
    time.sleep(0.5)  # nothing is to happen meanwhile
    assert power_of(alert, instance_id) == (Vm.ACTIVE, Power.RUNNING)
    alert.db.run(instances.update, instance_id, task_state=None)
    eventually(lambda: power_of(alert, instance_id) == (Vm.STOPPED, Power.SHUTOFF), 10)


def test_a_hypervisor_that_does_not_answer_after_its_event_is_asked_again(
    alert: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "LOOK_AGAIN_S", (0.2,) * 20)
    instance_id = alert.boot()
    alert.drivers["h1"].faults.fail("list_guests", HypervisorUnreachableError("cut"))
    turn(alert, instance_id, Power.SHUTOFF)
    eventually(lambda: power_of(alert, instance_id) == (Vm.STOPPED, Power.SHUTOFF), 10)


def test_many_guests_that_stop_at_once_wait_for_the_sync(alert: Deployment) -> None:
    ids = [alert.boot() for _ in range(7)]
    for instance_id in ids:
        turn(alert, instance_id, Power.SHUTOFF)
    time.sleep(1)
    at_once = [one for one in ids if power_of(alert, one)[0] == Vm.STOPPED]
    assert len(at_once) <= 5
    by_and_by = [change for _ in range(3) for change in alert.services["h1"].sync.run()]
    assert len(at_once) + len(by_and_by) == 7


def test_our_own_operations_need_no_looks(alert: Deployment) -> None:
    instance_id = alert.boot()
    calls: Any = alert.drivers["h1"].calls
    listings = calls["list_guests"]
    for verb in ("pause", "unpause", "stop", "start"):
        alert.done(getattr(alert.api, verb)(ADMIN, instance_id))
    assert calls["list_guests"] == listings


def test_events_that_were_missed_make_a_full_look(alert: Deployment) -> None:
    instance_id = alert.boot()
    hypervisor = alert.drivers["h1"].hypervisor
    with hypervisor.changing(f"instance-{instance_id:08x}") as (_, domain):
        domain.turn(Power.SHUTOFF)
    tell(alert, None)
    eventually(lambda: power_of(alert, instance_id) == (Vm.STOPPED, Power.SHUTOFF), 5)
