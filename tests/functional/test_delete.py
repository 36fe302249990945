"""A delete outranks everything, always ends, and leaves nothing: no guest, no address, no claim, no straggler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from compute import errors
from compute.ops import lifecycle
from compute.states import Vm
from db import actions, instances, networks, volumes
from tests.functional.crashes import settled
from tests.functional.harness import ADMIN, MEMBER, Deployment, eventually
from virt.errors import DriverTimeoutError, HypervisorError, HypervisorUnreachableError


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A delete waits but a moment for what it cancels."""
    monkeypatch.setattr(lifecycle, "ABORT_WAIT_S", 0.2)


def gone(cloud: Deployment, instance_id: int) -> None:
    """It is deleted, and nothing anywhere remembers it."""
    row = cloud.instance(instance_id)
    assert (row.vm_state, row.deleted, row.task_state) == (Vm.DELETED, True, None)
    assert cloud.db.query(networks.addresses_of, [instance_id]) == []
    settled(cloud)


def wait_for_call(cloud: Deployment, method: str, host: str = "h1") -> None:
    eventually(lambda: cloud.drivers[host].calls[method], what=method)


@pytest.mark.parametrize("point", ["spawn", "spawn.disks", "spawn.start", "spawn.done"])
def test_a_build_that_hangs_is_deleted_and_its_straggler_leaves_nothing(one_host: Deployment, point: str) -> None:
    faults = one_host.drivers["h1"].faults
    faults.hang(point)
    instance_id = one_host.boot(wait=False)
    wait_for_call(one_host, "spawn")
    (job,) = one_host.services["h1"].host.tasks.running()
    one_host.done(one_host.api.delete(ADMIN, instance_id), 5)
    assert job.cancelled
    faults.release()
    eventually(lambda: not one_host.services["h1"].host.tasks.running())
    gone(one_host, instance_id)
    assert [one.state for one in one_host.actions(instance_id)] == ["aborted", "done"]


@pytest.mark.parametrize(
    ("verb", "method", "point"),
    [("reboot", "reboot", "reboot"), ("pause", "pause", "pause.done"), ("stop", "power_off", "power_off"),
     ("rescue", "rescue", "rescue.start"), ("suspend", "suspend", "suspend")],
)  # fmt: skip
def test_an_operation_that_hangs_never_blocks_a_delete(
    one_host: Deployment, verb: str, method: str, point: str
) -> None:
    instance_id = one_host.boot()
    one_host.drivers["h1"].faults.hang(point)
    getattr(one_host.api, verb)(ADMIN, instance_id)
    wait_for_call(one_host, method)
    one_host.done(one_host.api.delete(ADMIN, instance_id), 5)
    one_host.drivers["h1"].faults.release()
    eventually(lambda: not one_host.services["h1"].host.tasks.running())
    gone(one_host, instance_id)


def test_what_a_straggler_makes_again_is_removed_again(one_host: Deployment) -> None:
    instance_id = one_host.boot()
    driver = one_host.drivers["h1"]
    spec = one_host.services["h1"].host.spec_of(instance_id)
    driver.faults.hang("reboot")
    driver.faults.at("reboot", lambda: driver.spawn(spec))  # what a hypervisor does that defines and starts
    one_host.api.reboot(ADMIN, instance_id)
    wait_for_call(one_host, "reboot")
    one_host.done(one_host.api.delete(ADMIN, instance_id), 5)
    driver.faults.release()
    eventually(lambda: not one_host.services["h1"].host.tasks.running())
    gone(one_host, instance_id)


def test_an_errored_instance_can_be_deleted(one_host: Deployment) -> None:
    one_host.drivers["h1"].faults.fail("spawn", HypervisorError("boom"))
    instance_id = one_host.boot(wait=False, host="h1")
    assert one_host.idle(instance_id).vm_state == Vm.ERROR
    one_host.done(one_host.api.delete(ADMIN, instance_id))
    gone(one_host, instance_id)


@pytest.mark.parametrize("error", [DriverTimeoutError("slow"), HypervisorUnreachableError("cut")])
def test_a_build_whose_remains_cannot_be_removed_stays_on_its_host_for_a_delete(
    one_host: Deployment, error: Exception
) -> None:
    faults = one_host.drivers["h1"].faults
    faults.fail("spawn", error, after=True)
    faults.fail("destroy", error, times=2)
    instance_id = one_host.boot(wait=False)
    row = one_host.idle(instance_id)
    assert (row.vm_state, row.host, len(one_host.drivers["h1"].list_guests())) == (Vm.ERROR, "h1", 1)
    one_host.done(one_host.api.delete(ADMIN, instance_id))
    gone(one_host, instance_id)


def test_an_instance_on_no_host_is_deleted_at_once(one_host: Deployment) -> None:
    instance_id = one_host.boot(wait=False, host="h1")
    one_host.idle(instance_id)
    one_host.done(one_host.api.delete(ADMIN, instance_id))
    other = one_host.boot()
    one_host.db.run(instances.update, other, host=None, vm_state=Vm.ERROR)
    assert one_host.api.delete(ADMIN, other).action_id is None
    assert one_host.instance(other).deleted


def test_a_resized_instance_is_deleted_on_both_hosts(deploy: Callable[..., Deployment]) -> None:
    cloud = deploy("h1", "h2")
    instance_id = cloud.boot(host="h1")
    cloud.done(cloud.api.resize(ADMIN, instance_id, "m1.small"))
    assert cloud.drivers["h1"].hypervisor.leftovers()
    cloud.done(cloud.api.delete(ADMIN, instance_id))
    assert [driver.hypervisor.names() for driver in cloud.drivers.values()] == [[], []]
    gone(cloud, instance_id)


@pytest.mark.parametrize("host", ["h1", "h2"])
def test_a_resize_that_hangs_is_deleted_on_both_hosts(deploy: Callable[..., Deployment], host: str) -> None:
    cloud = deploy("h1", "h2")
    instance_id = cloud.boot(host="h1")
    method = {"h1": "migrate_disk_and_power_off", "h2": "finish_resize"}[host]
    cloud.drivers[host].faults.hang(f"{method}.done")
    cloud.api.resize(ADMIN, instance_id, "m1.small")
    wait_for_call(cloud, method, host)
    cloud.done(cloud.api.delete(ADMIN, instance_id), 5)
    cloud.drivers[host].faults.release()
    eventually(lambda: not cloud.services[host].host.tasks.running())
    gone(cloud, instance_id)


def test_a_second_delete_is_the_first_one(one_host: Deployment) -> None:
    instance_id = one_host.boot()
    one_host.drivers["h1"].faults.hang("destroy")
    first = one_host.api.delete(ADMIN, instance_id)
    wait_for_call(one_host, "destroy")
    second = one_host.api.delete(ADMIN, instance_id)
    assert second.action_id == first.action_id
    one_host.drivers["h1"].faults.release()
    one_host.done(second)
    gone(one_host, instance_id)
    with pytest.raises(errors.InstanceNotFoundError):
        one_host.api.delete(ADMIN, instance_id)


def test_a_locked_instance_is_deleted_only_by_an_administrator(one_host: Deployment) -> None:
    instance_id = one_host.boot(MEMBER)
    one_host.api.lock(ADMIN, instance_id)
    with pytest.raises(errors.InstanceLockedError):
        one_host.api.delete(MEMBER, instance_id)
    with pytest.raises(errors.InstanceLockedError):
        one_host.call("h1", "terminate_instance", replace(MEMBER, request_id="req-1"), instance_id=instance_id)
    one_host.done(one_host.api.delete(ADMIN, instance_id))
    gone(one_host, instance_id)


def test_a_delete_that_fails_can_be_asked_for_again(one_host: Deployment) -> None:
    instance_id = one_host.boot()
    one_host.drivers["h1"].faults.fail("destroy", HypervisorError("boom"))
    with pytest.raises(errors.ComputeError, match="boom"):
        one_host.done(one_host.api.delete(ADMIN, instance_id))
    assert one_host.instance(instance_id).vm_state == Vm.ERROR
    one_host.done(one_host.api.delete(ADMIN, instance_id))
    gone(one_host, instance_id)


def test_a_deleted_instance_gives_its_volume_back(one_host: Deployment) -> None:
    instance_id = one_host.boot()
    facts: dict[str, Any] = {"status": "available", "provider_location": "file:/v"}
    volume_id = one_host.db.run(volumes.create, user_id="admin", project_id="admin", size=1, **facts)
    one_host.done(one_host.api.attach_volume(ADMIN, instance_id, volume_id, "/dev/vdb"))
    one_host.done(one_host.api.delete(ADMIN, instance_id))
    assert one_host.db.query(volumes.get, volume_id).status == "available"
    gone(one_host, instance_id)


def test_an_attachment_that_failed_half_way_is_kept_until_the_guest_let_go(one_host: Deployment) -> None:
    instance_id = one_host.boot()
    facts: dict[str, Any] = {"status": "available", "provider_location": "file:/v"}
    volume_id = one_host.db.run(volumes.create, user_id="admin", project_id="admin", size=1, **facts)
    faults = one_host.drivers["h1"].faults
    faults.fail("attach_volume", DriverTimeoutError("slow"), after=True)
    faults.fail("detach_volume", DriverTimeoutError("slow"))
    with pytest.raises(errors.ComputeError, match="slow"):
        one_host.done(one_host.api.attach_volume(ADMIN, instance_id, volume_id, "/dev/vdb"))
    assert one_host.db.query(volumes.get, volume_id).status == "in-use"
    one_host.done(one_host.api.detach_volume(ADMIN, volume_id))
    assert one_host.db.query(volumes.get, volume_id).status == "available"


def test_a_delete_aborts_an_order_that_nobody_has_taken(one_host: Deployment) -> None:
    instance_id = one_host.boot()
    one_host.stop("h1")
    waiting = one_host.api.pause(ADMIN, instance_id)
    deleting = one_host.api.delete(ADMIN, instance_id)
    one_host.start("h1")
    one_host.done(deleting)
    assert one_host.db.query(actions.get, waiting.action_id).state == "aborted"
    gone(one_host, instance_id)
