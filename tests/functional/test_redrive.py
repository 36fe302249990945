"""Lost, repeated and late messages, and a database that is away: every order is done once and recorded right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from compute.rpcapi import ComputeRPC
from compute.states import Task, Vm
from db import actions, instances, volumes
from tests.functional.crashes import settled
from tests.functional.harness import ADMIN, Deployment, eventually
from tests.functional.weather import Weather
from virt.power_state import Power


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cast reaches anybody."""
    monkeypatch.setattr(ComputeRPC, "cast", lambda *_, **__: False)


@pytest.fixture
def doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cast arrives twice."""
    once = ComputeRPC.cast

    def twice(rpc: ComputeRPC, *args: Any, **kwargs: Any) -> bool:
        return once(rpc, *args, **kwargs) and once(rpc, *args, **kwargs)

    monkeypatch.setattr(ComputeRPC, "cast", twice)


def weather_of(cloud: Deployment, host: str = "h1") -> Weather:
    return Weather(cloud.services[host].host.db)


@pytest.mark.usefixtures("deaf")
def test_orders_that_nobody_rang_for_are_done_within_a_redrive(one_host: Deployment) -> None:
    accepted = one_host.api.create(ADMIN, image="tiny", instance_type="m1.tiny")[0]
    assert not accepted.rang
    one_host.done(accepted, 5)
    one_host.done(one_host.api.pause(ADMIN, accepted.instance_id), 5)
    assert one_host.instance(accepted.instance_id).vm_state == Vm.PAUSED


@pytest.mark.usefixtures("deaf")
def test_a_resize_goes_from_host_to_host_without_one_message(deploy: Callable[..., Deployment]) -> None:
    cloud = deploy("h1", "h2")
    instance_id = cloud.boot(host="h1")
    cloud.done(cloud.api.resize(ADMIN, instance_id, "m1.small"))
    assert cloud.instance(instance_id).host == "h2"
    settled(cloud)


def test_orders_accepted_while_the_daemon_is_down_are_done_at_its_start(deploy: Callable[..., Deployment]) -> None:
    cloud = deploy("h1", redrive_interval=3600)
    instance_id = cloud.boot()
    cloud.stop("h1")
    accepted = cloud.api.pause(ADMIN, instance_id)
    cloud.start("h1")
    cloud.done(accepted)
    assert cloud.drivers["h1"].calls["pause"] == 1


@pytest.mark.usefixtures("doubled")
def test_doubled_messages_are_done_once(deploy: Callable[..., Deployment]) -> None:
    cloud = deploy("h1", "h2", redrive_interval=0.1)
    instance_id = cloud.boot(host="h1")
    for verb in ("pause", "unpause", "stop", "start", "reboot", "rescue", "unrescue"):
        cloud.done(getattr(cloud.api, verb)(ADMIN, instance_id))
    cloud.done(cloud.api.resize(ADMIN, instance_id, "m1.small"))
    settled(cloud)
    calls = cloud.drivers["h1"].calls + cloud.drivers["h2"].calls
    names = ("spawn", "pause", "unpause", "power_on", "reboot", "rescue", "unrescue", "finish_resize")
    assert {name: calls[name] for name in names} == dict.fromkeys(names, 1)
    assert calls["power_off"] == 2  # the stop, and the resize


def test_a_plain_cast_that_comes_twice_is_done_once(one_host: Deployment) -> None:
    instance_id = one_host.boot()
    context = replace(ADMIN, request_id="req-twice")
    for _ in range(2):
        one_host.ring("h1", "reboot_instance", context, instance_id=instance_id)
    eventually(lambda: [one.state for one in one_host.actions(instance_id)] == ["done", "done"])
    one_host.done(one_host.api.pause(ADMIN, instance_id))
    assert one_host.drivers["h1"].calls["reboot"] == 1
    assert [one.action for one in one_host.actions(instance_id)] == ["spawning", "rebooting_hard", "pausing"]


def test_a_plain_build_that_waits_its_turn_survives_a_restart(deploy: Callable[..., Deployment]) -> None:
    cloud = deploy("h1", max_concurrent_builds=1, graceful_stop_timeout=0)
    cloud.drivers["h1"].faults.hang("spawn")
    first, second = cloud.boot(wait=False), cloud.boot(wait=False)
    cloud.db.run(actions.abort_open, second, "as if a plain scheduler had made it")
    cloud.db.run(instances.update, second, task_state="scheduling", host=None)
    cloud.ring("h1", "run_instance", replace(ADMIN, request_id="req-plain"), instance_id=second)
    eventually(lambda: cloud.actions(second)[-1].state == "requested")
    cloud.stop("h1")
    cloud.drivers.pop("h1").faults.release()
    cloud.start("h1")
    assert {cloud.idle(one).vm_state for one in (first, second)} == {Vm.ACTIVE}
    settled(cloud)


@pytest.mark.parametrize("trouble", ["away", "answerless", "repeated"])
@pytest.mark.parametrize("verb", ["pause", "reboot", "stop", "snapshot"])
def test_an_end_that_could_not_be_recorded_is_recorded_later(one_host: Deployment, trouble: str, verb: str) -> None:
    instance_id = one_host.boot()
    weather = weather_of(one_host)
    getattr(weather, trouble)("_write_done")
    args = ("copy",) if verb == "snapshot" else ()
    accepted = getattr(one_host.api, verb)(ADMIN, instance_id, *args)
    eventually(lambda: weather.hits >= (2 if trouble == "away" else 1))
    weather.clear()
    one_host.done(accepted)
    name = {"stop": "power_off"}.get(verb, verb)
    assert one_host.drivers["h1"].calls[name] == 1
    assert one_host.instance(instance_id).task_state is None


@pytest.mark.parametrize("trouble", ["away", "answerless", "repeated"])
def test_a_built_guest_is_not_undone_because_the_database_is_away(one_host: Deployment, trouble: str) -> None:
    weather = weather_of(one_host)
    getattr(weather, trouble)("_write_done")
    accepted = one_host.api.create(ADMIN, image="tiny", instance_type="m1.tiny")[0]
    eventually(lambda: weather.hits)
    weather.clear()
    one_host.done(accepted)
    calls = one_host.drivers["h1"].calls
    assert (calls["spawn"], calls["destroy"]) == (1, 0)
    settled(one_host)


@pytest.mark.parametrize("trouble", ["away", "answerless", "repeated"])
def test_a_leg_that_could_not_be_passed_on_is_passed_on_later(deploy: Callable[..., Deployment], trouble: str) -> None:
    cloud = deploy("h1", "h2")
    instance_id = cloud.boot(host="h1")
    weather = weather_of(cloud, "h1")
    getattr(weather, trouble)("_write_leg")
    accepted = cloud.api.resize(ADMIN, instance_id, "m1.small")
    eventually(lambda: weather.hits)
    weather.clear()
    cloud.done(accepted)
    assert cloud.drivers["h1"].calls["revert_resize"] == 0
    settled(cloud)


def test_a_failure_that_could_not_be_recorded_is_recorded_later(one_host: Deployment) -> None:
    instance_id = one_host.boot()
    weather = weather_of(one_host)
    weather.away("_write_failed")
    one_host.drivers["h1"].hypervisor.turn(f"instance-{instance_id:08x}", Power.SHUTOFF)
    one_host.api.pause(ADMIN, instance_id)
    eventually(lambda: weather.hits >= 2)
    weather.clear()
    row = one_host.idle(instance_id)
    assert "cannot pause guest" in str(row.fault)
    assert one_host.drivers["h1"].calls["pause"] == 1


def test_an_order_whose_claim_answer_was_lost_is_done_all_the_same(one_host: Deployment) -> None:
    instance_id = one_host.boot()
    weather = weather_of(one_host)
    weather.answerless("claim")
    accepted = one_host.api.pause(ADMIN, instance_id)
    eventually(lambda: weather.hits)
    weather.clear()
    one_host.done(accepted)
    assert one_host.drivers["h1"].calls["pause"] == 1


@pytest.mark.parametrize("verb", ["pause", "delete", "snapshot", "attach_volume"])
def test_an_accepted_order_whose_answer_was_lost_is_one_order(one_host: Deployment, verb: str) -> None:
    instance_id = one_host.boot()
    facts = {"status": "available", "provider_location": "file:/v"}
    volume_id = one_host.db.run(volumes.create, user_id="admin", project_id="admin", size=1, **facts)
    Weather(one_host.api.db).repeated("write")
    args = {"snapshot": ("copy",), "attach_volume": (volume_id, "/dev/vdb")}.get(verb, ())
    one_host.done(getattr(one_host.api, verb)(ADMIN, instance_id, *args))
    assert len(one_host.actions(instance_id)) == 2
    settled(one_host)


def test_an_instance_taken_without_an_order_is_freed_with_a_fault(one_host: Deployment) -> None:
    instance_id = one_host.boot()
    one_host.db.run(instances.update, instance_id, task_state=Task.PAUSING)
    row = one_host.idle(instance_id, 5)
    assert "had no order behind it" in str(row.fault)


def test_one_order_that_cannot_be_read_keeps_no_other_waiting(one_host: Deployment) -> None:
    poisoned, other = one_host.boot(), one_host.boot()
    one_host.stop("h1")
    bad = one_host.api.pause(ADMIN, poisoned)
    good = one_host.api.pause(ADMIN, other)
    one_host.db.run(actions.redirect, one_host.db.query(actions.get, bad.action_id), step="pause_instance",
                    host="h1", args='{"sealed": "of another key"}', deadline_s=0.5)  # fmt: skip
    one_host.start("h1")
    one_host.done(good)
    assert "pause_instance" in str(one_host.idle(poisoned).fault)
