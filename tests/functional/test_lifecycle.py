"""Every action on an instance, end to end on the fake driver."""

from __future__ import annotations

import pytest

from compute.states import Vm
from db import audit
from tests.functional.harness import ADMIN, Deployment
from virt.power_state import Power


def test_a_booted_instance_is_active_and_runs(one_host: Deployment) -> None:
    row = one_host.instance(one_host.boot())
    assert (row.vm_state, row.task_state, row.power_state, row.host) == (Vm.ACTIVE, None, Power.RUNNING, "h1")
    assert row.launched_at is not None


@pytest.mark.parametrize(
    ("there", "state", "back"),
    [
        ("pause", Vm.PAUSED, "unpause"),
        ("suspend", Vm.SUSPENDED, "resume"),
        ("stop", Vm.STOPPED, "start"),
        ("rescue", Vm.RESCUED, "unrescue"),
    ],
)
def test_an_instance_goes_there_and_back(one_host: Deployment, there: str, state: Vm, back: str) -> None:
    instance_id = one_host.boot()
    one_host.done(getattr(one_host.api, there)(ADMIN, instance_id))
    assert one_host.instance(instance_id).vm_state == state
    one_host.done(getattr(one_host.api, back)(ADMIN, instance_id))
    assert one_host.instance(instance_id).vm_state == Vm.ACTIVE


@pytest.mark.parametrize("soft", [True, False])
def test_a_rebooted_instance_is_active(one_host: Deployment, soft: bool) -> None:
    instance_id = one_host.boot()
    one_host.done(one_host.api.reboot(ADMIN, instance_id, soft=soft))
    assert one_host.instance(instance_id).vm_state == Vm.ACTIVE
    assert one_host.drivers["h1"].calls["reboot"] == 1


def test_a_deleted_instance_leaves_nothing(one_host: Deployment) -> None:
    instance_id = one_host.boot()
    one_host.done(one_host.api.delete(ADMIN, instance_id))
    row = one_host.instance(instance_id)
    assert (row.vm_state, row.deleted, row.task_state) == (Vm.DELETED, True, None)
    assert one_host.drivers["h1"].list_guests() == []


def test_a_resized_instance_moves_and_can_be_confirmed(deploy) -> None:  # type: ignore[no-untyped-def]
    cloud = deploy("h1", "h2")
    instance_id = cloud.boot()
    first = cloud.instance(instance_id).host
    cloud.done(cloud.api.resize(ADMIN, instance_id, "m1.small"))
    row = cloud.instance(instance_id)
    assert (row.vm_state, row.memory_mb) == (Vm.RESIZED, 2048)
    assert row.host != first
    cloud.done(cloud.api.confirm_resize(ADMIN, instance_id))
    assert cloud.instance(instance_id).vm_state == Vm.ACTIVE


def test_a_reverted_resize_is_back_at_its_size_and_host(deploy) -> None:  # type: ignore[no-untyped-def]
    cloud = deploy("h1", "h2")
    instance_id = cloud.boot()
    first = cloud.instance(instance_id)
    cloud.done(cloud.api.resize(ADMIN, instance_id, "m1.small"))
    cloud.done(cloud.api.revert_resize(ADMIN, instance_id))
    row = cloud.instance(instance_id)
    assert (row.vm_state, row.memory_mb, row.host) == (Vm.ACTIVE, first.memory_mb, first.host)


def test_a_live_migrated_instance_runs_on_the_other_host(deploy) -> None:  # type: ignore[no-untyped-def]
    cloud = deploy("h1", "h2")
    instance_id = cloud.boot()
    first = cloud.instance(instance_id).host
    dest = "h2" if first == "h1" else "h1"
    cloud.done(cloud.api.live_migration(ADMIN, instance_id, dest))
    row = cloud.instance(instance_id)
    assert (row.vm_state, row.host, row.power_state) == (Vm.ACTIVE, dest, Power.RUNNING)
    assert [fact.name for fact in cloud.drivers[dest].list_guests()] == [f"instance-{instance_id:08x}"]


def test_claims_follow_an_instance_through_a_resize_and_its_delete(deploy) -> None:  # type: ignore[no-untyped-def]
    cloud = deploy("h1", "h2")
    instance_id = cloud.boot()
    cloud.done(cloud.api.resize(ADMIN, instance_id, "m1.small"))
    assert sorted(_memory_used(cloud)) == [512, 2048]
    assert {one.memory_mb for one in cloud.db.query(audit.claims)} == {512, 2048}
    _recount(cloud)
    assert sorted(_memory_used(cloud)) == [512, 2048]
    cloud.done(cloud.api.delete(ADMIN, instance_id))
    assert _memory_used(cloud) == [0, 0]
    assert [driver.hypervisor.leftovers() for driver in cloud.drivers.values()] == [{}, {}]


def _memory_used(cloud: Deployment) -> list[int]:
    return [cloud.api.describe_resource(ADMIN, host)["resource"]["memory_mb_used"] for host in cloud.drivers]


def _recount(cloud: Deployment) -> None:
    for host in cloud.drivers:
        cloud.api.update_available_resource(ADMIN, host)
