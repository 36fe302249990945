"""nova-scheduler: places what is cast to topic `scheduler`, exactly once, and fails what fits nowhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from compute.api import Accepted
from compute.errors import NotAuthorizedError, NoValidHostError
from compute.rpcapi import ComputeRPC
from compute.scheduler_service import SchedulerService
from compute.states import Vm
from db import actions, compute_nodes, services
from tests.functional.harness import ADMIN, MEMBER, ROOT, Deployment, eventually
from tests.functional.outside import insert_instance

Start = Callable[..., SchedulerService]


@pytest.fixture
def cloud(deploy: Callable[..., Deployment]) -> Deployment:
    """Two hosts, an API that leaves placing to nova-scheduler, and none of those yet."""
    return deploy("h1", "h2", scheduler_mode="rpc", rpc_response_timeout=20)


@pytest.fixture
def scheduler(cloud: Deployment) -> Iterator[Start]:
    """Start a scheduler on a host of this name."""
    with ExitStack() as stack:

        def start(host: str = "s1") -> SchedulerService:
            service = SchedulerService(cloud.conf_for(host))
            service.start()
            stack.callback(service.stop)
            return service

        yield start


def call(cloud: Deployment, verb: str, context: Any = ADMIN, /, **args: Any) -> Any:
    """Call a scheduler as a client would."""
    return bus_of(cloud).call(context, "s1", verb, **args)


def bus_of(cloud: Deployment) -> ComputeRPC:
    """A client of topic `scheduler`, over the API's own bus."""
    return ComputeRPC(cloud.api.rpc._open_client, topic="scheduler", scheduler_topic="scheduler")


def accepted(cloud: Deployment, **request: Any) -> Accepted:
    """A boot that is accepted and rung for, not waited for."""
    return cloud.api.create(ADMIN, image="tiny", instance_type="m1.tiny", **request)[0]


def running_vms(cloud: Deployment) -> int:
    """Claims on all hosts."""
    return sum(one.node.running_vms for one in cloud.db.query(compute_nodes.candidates))


def test_an_order_without_a_host_is_placed_and_built(cloud: Deployment, scheduler: Start) -> None:
    scheduler()
    order = accepted(cloud)
    assert cloud.actions(order.instance_id)[0].host in {None, "h1", "h2"}
    cloud.done(order)
    row = cloud.instance(order.instance_id)
    assert row.vm_state == Vm.ACTIVE
    assert row.host in {"h1", "h2"}
    assert row.scheduled_at is not None


def test_an_order_waits_while_no_scheduler_runs_and_is_placed_by_the_next(cloud: Deployment, scheduler: Start) -> None:
    order = accepted(cloud)
    assert not order.rang or cloud.instance(order.instance_id).host is None
    scheduler()
    cloud.done(order)


def test_an_order_whose_message_was_lost_is_found_by_the_clock(
    cloud: Deployment, scheduler: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler()
    monkeypatch.setattr(cloud.api.rpc, "ring", lambda *_: False)
    cloud.done(accepted(cloud))


def test_an_order_rung_for_by_many_is_placed_once(cloud: Deployment, scheduler: Start) -> None:
    scheduler("s1")
    scheduler("s2")
    order = accepted(cloud)
    for _ in range(10):
        cloud.api.rpc.ring(ADMIN, bell(order))
    cloud.done(order)
    eventually(lambda: running_vms(cloud) == 1, what="one claim")
    assert [one.attempt for one in cloud.actions(order.instance_id)] == [1]
    assert sum(driver.calls["spawn"] for driver in cloud.drivers.values()) == 1


def bell(order: Accepted) -> Any:
    """What rings the scheduler for an order again."""
    from compute.orders import Bell

    assert order.action_id is not None
    return Bell(id=order.action_id, instance_id=order.instance_id, host=None, step="run_instance", args={})


def test_what_fits_nowhere_is_an_error_that_says_why(cloud: Deployment, scheduler: Start) -> None:
    scheduler()
    order = accepted(cloud, availability_zone="atlantis")
    row = cloud.idle(order.instance_id)
    assert (row.vm_state, row.host, running_vms(cloud)) == (Vm.ERROR, None, 0)
    fault = json.loads(row.fault or "{}")
    assert fault["code"] == "NoValidHostError"
    assert "atlantis" in fault["message"]
    assert cloud.actions(order.instance_id)[0].state == actions.FAILED


def test_an_instance_that_fits_nowhere_can_be_deleted(cloud: Deployment, scheduler: Start) -> None:
    scheduler()
    order = accepted(cloud, availability_zone="atlantis")
    cloud.idle(order.instance_id)
    cloud.done(cloud.api.delete(ADMIN, order.instance_id))
    assert cloud.instance(order.instance_id).deleted


def test_a_delete_before_placing_wins(cloud: Deployment, scheduler: Start) -> None:
    order = accepted(cloud)
    cloud.api.delete(ADMIN, order.instance_id)
    scheduler()
    cloud.api.rpc.ring(ADMIN, bell(order))
    cloud.done(accepted(cloud))
    assert cloud.instance(order.instance_id).vm_state == Vm.DELETED
    assert running_vms(cloud) == 1


def test_a_row_that_a_plain_client_wrote_is_placed(cloud: Deployment, scheduler: Start) -> None:
    scheduler()
    instance_id = insert_instance(str(cloud.conf.sql_connection))
    assert call(cloud, "run_instance", topic="compute", instance_id=instance_id) is None
    row = eventually(lambda: row if (row := cloud.instance(instance_id)).vm_state == Vm.ACTIVE else None)
    assert row.host in {"h1", "h2"}
    assert running_vms(cloud) == 1


def test_a_plain_row_cast_twice_is_built_once(cloud: Deployment, scheduler: Start) -> None:
    scheduler("s1")
    scheduler("s2")
    instance_id = insert_instance(str(cloud.conf.sql_connection))
    for host in ("s1", "s2", "s1"):
        bus_of(cloud).cast(ADMIN, host, "run_instance", topic="compute", instance_id=instance_id)
    eventually(lambda: cloud.instance(instance_id).vm_state == Vm.ACTIVE, what="active")
    assert [one.state for one in cloud.actions(instance_id)] == [actions.DONE]
    assert running_vms(cloud) == 1


def test_a_plain_row_that_fits_nowhere_is_an_error(cloud: Deployment, scheduler: Start) -> None:
    scheduler()
    instance_id = insert_instance(str(cloud.conf.sql_connection), availability_zone="atlantis")
    with pytest.raises(NoValidHostError):
        call(cloud, "run_instance", topic="compute", instance_id=instance_id)
    row = cloud.instance(instance_id)
    assert (row.vm_state, row.task_state) == (Vm.ERROR, None)
    assert "NoValidHostError" in (row.fault or "")


def test_injected_files_of_a_plain_cast_are_sealed(cloud: Deployment, scheduler: Start) -> None:
    scheduler()
    instance_id = insert_instance(str(cloud.conf.sql_connection))
    call(cloud, "run_instance", instance_id=instance_id, injected_files=[["/etc/motd", "aGVsbG8="]])
    row = eventually(lambda: row if (row := cloud.instance(instance_id)).vm_state == Vm.ACTIVE else None)
    assert cloud.api.sealer.open(row.sealed_files or "") == [["/etc/motd", "aGVsbG8="]]


def test_only_an_administrator_chooses_the_host(cloud: Deployment, scheduler: Start) -> None:
    scheduler()
    instance_id = insert_instance(str(cloud.conf.sql_connection), availability_zone="nova:h2")
    with pytest.raises(NotAuthorizedError):
        call(cloud, "run_instance", MEMBER, instance_id=instance_id)
    other = insert_instance(str(cloud.conf.sql_connection), availability_zone="nova:h2")
    call(cloud, "run_instance", instance_id=other)
    assert cloud.instance(other).host == "h2"


def test_a_client_with_nothing_but_the_bus_creates_instances(cloud: Deployment, scheduler: Start) -> None:
    scheduler()
    made = call(cloud, "create_instance", MEMBER, image="tiny", instance_type="m1.tiny", min_count=3, user_data="aGk=")
    assert len(made) == 3
    for one in made:
        cloud.done(Accepted(**one))
        assert cloud.instance(one["instance_id"]).project_id == MEMBER.project_id


def test_a_resize_and_a_migration_are_placed_for_plain_clients(cloud: Deployment, scheduler: Start) -> None:
    scheduler()
    instance_id = call(cloud, "create_instance", image="tiny", instance_type="m1.tiny", host="h1")[0]["instance_id"]
    eventually(lambda: cloud.instance(instance_id).vm_state == Vm.ACTIVE)
    cloud.done(Accepted(**call(cloud, "live_migration", topic="compute", instance_id=instance_id, dest="h2")))
    cloud.done(Accepted(**call(cloud, "prep_resize", topic="compute", instance_id=instance_id, flavor_id=2)))
    row = cloud.instance(instance_id)
    assert (row.vm_state, row.host, row.memory_mb) == (Vm.RESIZED, "h1", 2048)


def test_a_hosts_resources_are_told_by_project(cloud: Deployment, scheduler: Start) -> None:
    scheduler()
    call(cloud, "create_instance", MEMBER, image="tiny", instance_type="m1.tiny", min_count=2)
    told = [call(cloud, "show_host_resources", host=host) for host in ("h1", "h2")]
    assert sum(one["resource"]["memory_mb_used"] for one in told) == 1024
    assert sum(one["usage"].get("blue", {}).get("vcpus", 0) for one in told) == 2
    assert call(cloud, "update_service_capabilities", service_name="compute", host="h1", capabilities={}) is None


def test_a_scheduler_is_registered_beats_and_signs_off(cloud: Deployment, scheduler: Start) -> None:
    service = scheduler("s9")

    def seen() -> Any:
        return cloud.db.query(services.find, "s9", "nova-scheduler")

    assert seen().topic == "scheduler"
    eventually(lambda: seen().report_count >= 2, what="heartbeats")
    cloud.db.run(services.destroy, seen().id)
    eventually(seen, what="a new row for the one that vanished")
    service.stop()
    assert seen().heartbeat_at is None


def test_the_program_serves_and_ends_when_told(cloud: Deployment) -> None:
    config = cloud.directory / "s.conf"
    config.write_text("[DEFAULT]\nhost = s1\nredrive_interval = 0.3\n" + f"state_path = {cloud.directory}\n")
    command = [sys.executable, "-m", "compute.scheduler_service", "--config-file", str(config)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ}) as process:
        cloud.done(accepted(cloud))
        process.terminate()
        told = process.communicate(timeout=30)[1]
    assert process.returncode == 0
    assert "nova-scheduler ready host=s1" in told
    assert "Traceback" not in told
