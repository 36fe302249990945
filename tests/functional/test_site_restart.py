"""A whole site starts at once: builds that come before the hosts' first heartbeats wait a while for hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from compute.api import Accepted
from compute.rpcapi import ComputeRPC
from compute.scheduler_service import SchedulerService
from compute.states import Vm
from tests.functional.crashes import settled
from tests.functional.harness import ADMIN, Deployment, eventually
from tests.functional.outside import insert_instance

Site = Callable[..., Deployment]


@pytest.fixture
def site(deploy: Callable[..., Deployment]) -> Iterator[Site]:
    """A site whose only host has just gone, and whose scheduler is up already."""
    with ExitStack() as stack:

        def make(**options: Any) -> Deployment:
            cloud = deploy("h1", scheduler_mode="rpc", **options)
            cloud.stop("h1")
            scheduler = SchedulerService(cloud.conf_for("s1"))
            scheduler.start()
            stack.callback(scheduler.stop)
            return cloud

        yield make


def accepted(cloud: Deployment, **request: Any) -> Accepted:
    return cloud.api.create(ADMIN, image="tiny", instance_type="m1.tiny", **request)[0]


def waits(cloud: Deployment, instance_id: int) -> str:
    """What its order says it waits for."""
    return eventually(lambda: next((str(one.progress) for one in cloud.actions(instance_id) if one.progress), ""))


def test_a_build_waits_for_a_host_that_starts_a_little_later(site: Site) -> None:
    cloud = site()
    order = accepted(cloud)
    assert "h1: down" in waits(cloud, order.instance_id)
    cloud.start("h1")
    cloud.done(order)
    assert (cloud.instance(order.instance_id).host, cloud.actions(order.instance_id)[0].progress) == ("h1", None)
    settled(cloud)


def test_a_plain_clients_record_waits_as_well(site: Site) -> None:
    cloud = site()
    instance_id = insert_instance(str(cloud.conf.sql_connection))
    client = ComputeRPC(cloud.api.rpc._open_client, topic="scheduler", scheduler_topic="scheduler")
    assert client.call(ADMIN, "s1", "run_instance", instance_id=instance_id) is None
    assert "h1: down" in waits(cloud, instance_id)
    cloud.start("h1")
    eventually(lambda: cloud.instance(instance_id).vm_state == Vm.ACTIVE)


def test_a_build_that_no_host_would_have_does_not_wait(site: Site) -> None:
    cloud = site()
    order = accepted(cloud, availability_zone="atlantis")
    assert cloud.idle(order.instance_id, 5).vm_state == Vm.ERROR


@pytest.mark.parametrize("wait_s", [0, 1])
def test_the_wait_has_an_end(site: Site, wait_s: int) -> None:
    cloud = site(scheduler_wait=wait_s)
    order = accepted(cloud)
    row = cloud.idle(order.instance_id, 10)
    assert (row.vm_state, row.host) == (Vm.ERROR, None)
    assert "h1: down" in str(row.fault)


def test_a_build_that_waits_can_be_deleted(site: Site) -> None:
    cloud = site()
    order = accepted(cloud)
    waits(cloud, order.instance_id)
    cloud.api.delete(ADMIN, order.instance_id)
    cloud.start("h1")
    assert cloud.instance(order.instance_id).deleted
    settled(cloud)
