"""Many guests that seem to be off at once are believed only when further looks agree."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from compute.states import Vm
from db import instances
from tests.functional.harness import Deployment, eventually
from virt.power_state import Power


@pytest.fixture
def eight(deploy: Callable[..., Deployment]) -> Deployment:
    """A host with eight guests."""
    cloud = deploy("h1", redrive_interval=3600, sync_mass_change_min=3)
    for _ in range(8):
        cloud.boot()
    return cloud


def turn(cloud: Deployment, ids: range, power: Power) -> None:
    for instance_id in ids:
        cloud.drivers["h1"].hypervisor.turn(f"instance-{instance_id:08x}", power)


def looks(cloud: Deployment, rounds: int) -> list[int]:
    """How many records each look wrote."""
    written = []
    for _ in range(rounds):
        now = cloud.db.query(instances.clock)
        eventually(lambda now=now: cloud.db.query(instances.clock) > now)  # what is of this millisecond is too fresh
        written.append(len(cloud.services["h1"].sync.run()))
    return written


def stopped(cloud: Deployment) -> int:
    return sum(cloud.instance(instance_id).vm_state == Vm.STOPPED for instance_id in range(1, 9))


def test_a_few_are_recorded_at_once(eight: Deployment) -> None:
    turn(eight, range(1, 4), Power.SHUTOFF)
    assert (looks(eight, 1), stopped(eight)) == ([3], 3)


def test_many_are_held_until_two_more_looks_agree(eight: Deployment) -> None:
    turn(eight, range(1, 6), Power.SHUTOFF)
    assert looks(eight, 2) == [0, 0]
    assert stopped(eight) == 0
    assert (looks(eight, 1), stopped(eight)) == ([5], 5)


def test_many_that_come_back_were_never_off(eight: Deployment) -> None:
    turn(eight, range(1, 9), Power.SHUTOFF)
    looks(eight, 2)
    turn(eight, range(1, 9), Power.RUNNING)
    assert (looks(eight, 1), stopped(eight)) == ([0], 0)


def test_looks_that_disagree_start_again(eight: Deployment) -> None:
    turn(eight, range(1, 6), Power.SHUTOFF)
    looks(eight, 2)
    turn(eight, range(6, 7), Power.SHUTOFF)
    assert looks(eight, 3) == [0, 0, 6]


def test_a_listing_that_lost_every_guest_writes_nothing(eight: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eight.drivers["h1"], "list_guests", list)
    assert looks(eight, 2) == [0, 0]
    monkeypatch.undo()
    assert looks(eight, 1) == [0]
    assert {eight.instance(instance_id).vm_state for instance_id in range(1, 9)} == {Vm.ACTIVE}


def test_many_that_came_on_are_recorded_at_once(eight: Deployment) -> None:
    turn(eight, range(1, 9), Power.SHUTOFF)
    looks(eight, 3)
    turn(eight, range(1, 9), Power.RUNNING)
    assert (looks(eight, 1), stopped(eight)) == ([8], 0)
