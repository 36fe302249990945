"""A step that fails leaves things as they were before the operation, and says why."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from compute.errors import ComputeError
from compute.states import Vm
from tests.functional.crashes import points_of, settled
from tests.functional.harness import ADMIN, Deployment
from virt.errors import DiskError, HypervisorError


@pytest.mark.parametrize("point", points_of("spawn"))
def test_a_build_that_fails_anywhere_leaves_nothing_here(one_host: Deployment, point: str) -> None:
    one_host.drivers["h1"].faults.fail(point, DiskError("disk full"))
    instance_id = one_host.boot(wait=False, host="h1")
    row = one_host.idle(instance_id)
    assert row.vm_state == Vm.ERROR
    assert "disk full" in str(row.fault)
    settled(one_host)


def test_a_build_that_fails_here_is_built_elsewhere(deploy: Callable[..., Deployment]) -> None:
    cloud = deploy("h1", "h2")
    for driver in cloud.drivers.values():
        driver.faults.fail("spawn.disks", DiskError("disk full"))
    cloud.drivers["h2"].faults.clear()
    assert cloud.instance(cloud.boot()).host == "h2"
    settled(cloud)


@pytest.mark.parametrize("point", points_of("finish_resize")[:-1])
def test_a_resize_that_fails_there_is_back_here(deploy: Callable[..., Deployment], point: str) -> None:
    cloud = deploy("h1", "h2")
    instance_id = cloud.boot(host="h1")
    cloud.drivers["h2"].faults.fail(point, HypervisorError("boom"))
    with pytest.raises(ComputeError, match="boom"):
        cloud.done(cloud.api.resize(ADMIN, instance_id, "m1.small"))
    assert (cloud.instance(instance_id).vm_state, cloud.instance(instance_id).host) == (Vm.ACTIVE, "h1")
    settled(cloud)


@pytest.mark.parametrize("point", points_of("migrate_disk_and_power_off"))
def test_a_resize_that_fails_here_leaves_the_guest_running(deploy: Callable[..., Deployment], point: str) -> None:
    cloud = deploy("h1", "h2")
    instance_id = cloud.boot(host="h1")
    cloud.drivers["h1"].faults.fail(point, HypervisorError("boom"))
    with pytest.raises(ComputeError, match="boom"):
        cloud.done(cloud.api.resize(ADMIN, instance_id, "m1.small"))
    settled(cloud)


@pytest.mark.parametrize("point", points_of("live_migration")[:-1])
def test_a_migration_that_fails_leaves_the_guest_where_it_was(deploy: Callable[..., Deployment], point: str) -> None:
    cloud = deploy("h1", "h2")
    instance_id = cloud.boot(host="h1")
    cloud.drivers["h1"].faults.fail(point, HypervisorError("boom"))
    with pytest.raises(ComputeError, match="boom"):
        cloud.done(cloud.api.live_migration(ADMIN, instance_id, "h2"))
    assert cloud.instance(instance_id).host == "h1"
    settled(cloud)
