"""After a boot of the host: what ran is started, by ordinary orders, once; what somebody stopped stays off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from compute.states import Vm
from tests.functional.crashes import nothing_open
from tests.functional.harness import ADMIN, Deployment, eventually
from virt.errors import HypervisorError
from virt.power_state import Power

Host = Callable[..., Deployment]


@pytest.fixture
def host(deploy: Host) -> Deployment:
    return deploy("h1", default_instance_type="m1.tiny", start_guests_on_host_boot=True, max_concurrent_builds=2)


def kept(cloud: Deployment) -> Path:
    return cloud.directory / "boot_id.h1"


def down(cloud: Deployment) -> None:
    """Every guest of the host, and its daemon, end at once."""
    hypervisor = cloud.drivers["h1"].hypervisor
    cloud.stop("h1")
    for fact in [fact for fact in hypervisor.facts() if fact.power.is_on]:
        hypervisor.turn(fact.name, Power.SHUTOFF)


def reboot(cloud: Deployment) -> None:
    """The host goes down and comes back."""
    down(cloud)
    kept(cloud).write_text("the boot before\n")
    cloud.start("h1")


def settled(cloud: Deployment) -> None:
    eventually(lambda: nothing_open(cloud), 20, "no open order")


def test_guests_that_ran_run_again_by_orders_in_the_journal(host: Deployment) -> None:
    ids = [host.boot() for _ in range(5)]
    reboot(host)
    settled(host)
    assert {fact.power for fact in host.drivers["h1"].list_guests()} == {Power.RUNNING}
    assert {host.instance(one).vm_state for one in ids} == {Vm.ACTIVE}
    assert {host.actions(one)[-1].action for one in ids} == {"rebooting_hard"}


@pytest.mark.parametrize("verb", ["stop", "suspend", "pause"])
def test_a_guest_that_did_not_run_is_not_started(host: Deployment, verb: str) -> None:
    instance_id = host.boot()
    host.done(getattr(host.api, verb)(ADMIN, instance_id))
    count = len(host.actions(instance_id))
    reboot(host)
    settled(host)
    assert len(host.actions(instance_id)) == count
    assert host.drivers["h1"].list_guests()[0].power is not Power.RUNNING


def test_a_guest_that_was_shut_down_while_only_the_daemon_was_away_stays_off(host: Deployment) -> None:
    instance_id = host.boot()
    down(host)
    host.start("h1")
    settled(host)
    assert len(host.actions(instance_id)) == 1


def test_a_boot_is_answered_once(host: Deployment) -> None:
    instance_id = host.boot()
    reboot(host)
    settled(host)
    down(host)
    host.start("h1")
    settled(host)
    assert [action.action for action in host.actions(instance_id)] == ["spawning", "rebooting_hard"]


def test_a_daemon_that_dies_before_it_kept_the_boot_orders_nothing_twice(host: Deployment) -> None:
    instance_id = host.boot()
    reboot(host)
    settled(host)
    host.stop("h1")
    kept(host).write_text("the boot before\n")
    host.start("h1")
    settled(host)
    assert [action.action for action in host.actions(instance_id)] == ["spawning", "rebooting_hard"]


def test_without_the_flag_nothing_is_started(deploy: Host) -> None:
    cloud = deploy("h1", default_instance_type="m1.tiny")
    instance_id = cloud.boot()
    reboot(cloud)
    settled(cloud)
    assert len(cloud.actions(instance_id)) == 1


def test_the_first_daemon_of_a_host_starts_nothing(host: Deployment) -> None:
    instance_id = host.boot()
    down(host)
    kept(host).unlink()
    host.start("h1")
    settled(host)
    assert len(host.actions(instance_id)) == 1


def test_one_that_cannot_be_started_does_not_keep_the_others_off(host: Deployment) -> None:
    ids = [host.boot() for _ in range(3)]
    host.drivers["h1"].faults.fail("reboot", HypervisorError("no"), times=1)
    reboot(host)
    settled(host)
    powers = [fact.power for fact in host.drivers["h1"].list_guests()]
    assert sorted(power is Power.RUNNING for power in powers) == [False, True, True]
    assert [host.actions(one)[-1].error for one in ids].count("no") == 1
