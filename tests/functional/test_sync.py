"""The power-state sync writes what the hypervisor says, only that, and in the same number of questions for any host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event

from compute.states import FOLLOWS, Task, Vm
from db import instances
from db.session import Tx
from tests.functional.harness import ADMIN, Deployment, eventually
from virt.errors import DriverTimeoutError, HypervisorError, HypervisorUnreachableError
from virt.power_state import Power
from virt.spec import GuestFact


def name_of(instance_id: int) -> str:
    return f"instance-{instance_id:08x}"


def sync(cloud: Deployment, host: str = "h1") -> list[Any]:
    now = cloud.db.query(instances.clock)
    eventually(lambda: cloud.db.query(instances.clock) > now)  # what was written in this very millisecond is too fresh
    return list(cloud.services[host].sync.run())


def turn(cloud: Deployment, instance_id: int, power: Power) -> None:
    cloud.drivers["h1"].hypervisor.turn(name_of(instance_id), power)


@contextmanager
def statements(cloud: Deployment, host: str = "h1") -> Iterator[list[str]]:
    """What the daemon asks its database, heartbeats and re-drive aside."""
    seen: list[str] = []
    database = cloud.services[host].host.db

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "FROM instance_actions" not in statement and "UPDATE services" not in statement:
            seen.append(statement)

    for engine in (database.engine, database.reader):
        event.listen(engine, "before_cursor_execute", note)
    yield seen
    for engine in (database.engine, database.reader):
        event.remove(engine, "before_cursor_execute", note)


@pytest.fixture
def quiet(deploy: Callable[..., Deployment]) -> Deployment:
    """One host whose timers stand still."""
    return deploy("h1", redrive_interval=3600, report_interval=3600)


@pytest.mark.parametrize(("before", "power"), list(FOLLOWS), ids=lambda value: value.name)
def test_an_idle_record_follows_the_fact(quiet: Deployment, before: Vm, power: Power) -> None:
    instance_id = quiet.boot()
    quiet.db.run(instances.update, instance_id, vm_state=before)
    turn(quiet, instance_id, power)
    sync(quiet)
    row = quiet.instance(instance_id)
    assert (row.vm_state, row.power_state) == (FOLLOWS[before, power], power)


@pytest.mark.parametrize("vm", [Vm.RESCUED, Vm.RESIZED, Vm.ERROR, Vm.BUILDING])
def test_other_states_keep_their_word_and_note_the_power(quiet: Deployment, vm: Vm) -> None:
    instance_id = quiet.boot()
    quiet.db.run(instances.update, instance_id, vm_state=vm)
    turn(quiet, instance_id, Power.SHUTOFF)
    sync(quiet)
    assert (quiet.instance(instance_id).vm_state, quiet.instance(instance_id).power_state) == (vm, Power.SHUTOFF)


@pytest.mark.parametrize(
    "error", [HypervisorUnreachableError("cut"), DriverTimeoutError("slow"), HypervisorError("broken")]
)
def test_a_hypervisor_that_does_not_answer_changes_no_record(quiet: Deployment, error: Exception) -> None:
    instance_id = quiet.boot()
    turn(quiet, instance_id, Power.SHUTOFF)
    quiet.drivers["h1"].faults.fail("list_guests", error)
    with statements(quiet) as seen:
        assert sync(quiet) == []
    assert not [one for one in seen if not one.startswith("SELECT")]
    assert not quiet.services["h1"].sync.reachable
    assert len(sync(quiet)) == 1
    assert quiet.services["h1"].sync.reachable


def test_a_guest_that_vanished_is_an_error_with_its_fault(quiet: Deployment) -> None:
    instance_id = quiet.boot()
    hypervisor = quiet.drivers["h1"].hypervisor
    hypervisor.erase(hypervisor.held(name_of(instance_id)))
    sync(quiet)
    row = quiet.instance(instance_id)
    assert (row.vm_state, row.power_state) == (Vm.ERROR, Power.NOSTATE)
    assert "gone from its hypervisor" in str(row.fault)


def test_an_instance_with_a_task_is_left_alone(quiet: Deployment) -> None:
    instance_id = quiet.boot()
    quiet.db.run(instances.update, instance_id, task_state=Task.REBOOTING)
    turn(quiet, instance_id, Power.SHUTOFF)
    assert sync(quiet) == []
    assert quiet.instance(instance_id).vm_state == Vm.ACTIVE


@pytest.mark.parametrize("verbs", [("stop", "start"), ("pause", "unpause"), ("live_migration",)])
def test_an_operation_between_the_look_and_the_write_wins(
    deploy: Callable[..., Deployment], monkeypatch: pytest.MonkeyPatch, verbs: tuple[str, ...]
) -> None:
    cloud = deploy("h1", "h2")
    instance_id = cloud.boot(host="h1")
    moves = verbs == ("live_migration",)

    def late() -> list[GuestFact]:
        for verb in verbs:
            cloud.done(getattr(cloud.api, verb)(ADMIN, instance_id, *(("h2",) if moves else ())))
        return [] if moves else [replace(facts_of(cloud)[0], power=Power.SHUTOFF)]

    monkeypatch.setattr(cloud.drivers["h1"], "list_guests", late)
    sync(cloud)
    row = cloud.instance(instance_id)
    assert (row.vm_state, row.power_state, row.fault) == (Vm.ACTIVE, Power.RUNNING, None)


def test_a_foreign_guest_is_nobodys_business(quiet: Deployment) -> None:
    hypervisor = quiet.drivers["h1"].hypervisor
    hypervisor.make_foreign_guest("customer-7")
    sync(quiet)
    assert quiet.api.audit_host(ADMIN, "h1") == []
    assert hypervisor.names() == ["customer-7"]


@pytest.mark.parametrize("kind", ["deleted", "elsewhere", "unknown"])
def test_an_orphan_is_reported_and_left_alone(quiet: Deployment, kind: str) -> None:
    instance_id = quiet.boot()
    uuid = quiet.instance(instance_id).uuid
    changes = {"deleted": {"deleted": True}, "elsewhere": {"host": "h9"}, "unknown": {"uuid": "x" * 36}}[kind]
    quiet.db.run(instances.update, instance_id, **changes)
    sync(quiet)
    assert quiet.api.audit_host(ADMIN, "h1") == [{"name": name_of(instance_id), "uuid": uuid, "kind": kind}]
    assert len(quiet.drivers["h1"].list_guests()) == 1


def thousand(tx: Tx, first: int) -> None:
    """A thousand records like the first."""
    row = instances.get(tx, first)
    names = [name for name in row.__slots__ if name not in {"id", "uuid", "fault"}]
    like = {name: getattr(row, name) for name in names}
    for number in range(1000):
        instances.create(tx, {**like, "uuid": f"{number:036d}"})


def facts_of(cloud: Deployment) -> list[GuestFact]:
    rows = cloud.db.query(instances.list_all)
    return [GuestFact(name=name_of(row.id), uuid=row.uuid, power=Power.RUNNING, ours=True) for row in rows]


def test_a_thousand_instances_cost_one_call_and_two_statements(
    quiet: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet.db.run(thousand, quiet.boot())
    facts, calls = facts_of(quiet), list[int]()
    monkeypatch.setattr(quiet.drivers["h1"], "list_guests", lambda: calls.append(1) or facts)
    before = quiet.drivers["h1"].calls.copy()
    with statements(quiet) as seen:
        assert quiet.services["h1"].sync.run() == []
    assert (len(calls), len(seen)) == (1, 2)
    assert quiet.drivers["h1"].calls == before


def test_the_sync_timer_runs(deploy: Callable[..., Deployment]) -> None:
    cloud = deploy("h1", periodic_interval=0.2)
    instance_id = cloud.boot()
    turn(cloud, instance_id, Power.PAUSED)
    eventually(lambda: cloud.instance(instance_id).vm_state == Vm.PAUSED)
