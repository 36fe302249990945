"""Every task from every state: taken, or refused with the exact reason, in every way that it can be asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from compute import errors, orders
from compute.context import RequestContext
from compute.states import MOVES, Task, Vm
from db import actions, instances, resizes
from tests.functional.harness import ADMIN, MEMBER, Deployment, eventually, template_database

NUMBERS = count(1)
LIVE = sorted(set(Vm) - {Vm.DELETED})
PAIRS = [(task, vm) for task in Task for vm in LIVE]
REFUSED = [(task, vm) for task, vm in PAIRS if vm not in MOVES[task].start]
VERBS: dict[Task, dict[str, Any]] = {
    Task.REBOOTING: {"reboot_type": "SOFT"},
    Task.SNAPSHOTTING: {"image_id": 1},
    Task.ATTACHING_VOLUME: {"volume_id": 1, "mountpoint": "/dev/vdb"},
    Task.DETACHING_VOLUME: {"volume_id": 1},
    Task.INJECTING_FILE: {"path": "/x", "file_contents": "x"},
    Task.RESIZING: {"flavor_id": "2"},
    Task.CONFIRMING_RESIZE: {"migration_id": 1},
    Task.REVERTING_RESIZE: {"migration_id": 1},
    Task.MIGRATING: {"dest": "h2"},
}
API: dict[Task, Callable[[Any, RequestContext, int], Any]] = {
    Task.REBOOTING: lambda api, context, key: api.reboot(context, key, soft=True),
    Task.REBOOTING_HARD: lambda api, context, key: api.reboot(context, key),
    Task.STARTING: lambda api, context, key: api.start(context, key),
    Task.STOPPING: lambda api, context, key: api.stop(context, key),
    Task.PAUSING: lambda api, context, key: api.pause(context, key),
    Task.UNPAUSING: lambda api, context, key: api.unpause(context, key),
    Task.SUSPENDING: lambda api, context, key: api.suspend(context, key),
    Task.RESUMING: lambda api, context, key: api.resume(context, key),
    Task.RESCUING: lambda api, context, key: api.rescue(context, key),
    Task.UNRESCUING: lambda api, context, key: api.unrescue(context, key),
    Task.SNAPSHOTTING: lambda api, context, key: api.snapshot(context, key, f"copy{next(NUMBERS)}"),
    Task.SETTING_PASSWORD: lambda api, context, key: api.set_admin_password(context, key),
    Task.INJECTING_FILE: lambda api, context, key: api.inject_file(context, key, "/x", b"x"),
    Task.RESETTING_NETWORK: lambda api, context, key: api.reset_network(context, key),
    Task.INJECTING_NETWORK_INFO: lambda api, context, key: api.inject_network_info(context, key),
    Task.RESIZING: lambda api, context, key: api.resize(context, key, "m1.small"),
    Task.DELETING: lambda api, context, key: api.delete(context, key),
}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Two hosts and one instance that is put into whatever state a test is about."""
    directory = tmp_path_factory.mktemp("refusals")
    template = template_database(tmp_path_factory.mktemp("template"))
    with Deployment(directory, template, redrive_interval=3600) as made:
        yield made.start("h1")


@pytest.fixture(scope="module")
def guest(cloud: Deployment) -> int:
    instance_id = cloud.boot(MEMBER)
    cloud.start("h2")
    move_id = cloud.db.run(resizes.create, instance_id=instance_id, kind="resize", source_compute="h2",
                           dest_compute="h1", status="reverted", old_flavor_id=1, new_flavor_id=1)  # fmt: skip
    assert move_id == 1
    return instance_id


def put(cloud: Deployment, instance_id: int, **facts: Any) -> None:
    cloud.db.run(instances.update, instance_id, **{"vm_state": Vm.ACTIVE, "task_state": None, "locked": False, **facts})


def member() -> RequestContext:
    """A request of its own: a repeated id is a repeated message."""
    return RequestContext(user_id="ann", project_id="blue")


def called(cloud: Deployment, task: Task, instance_id: int, context: RequestContext) -> Any:
    host = "h2" if task in {Task.RESIZING, Task.CONFIRMING_RESIZE} else "h1"
    return cloud.call(host, MOVES[task].verb, context, instance_id=instance_id, **VERBS.get(task, {}))


@pytest.mark.parametrize(("task", "vm"), PAIRS)
def test_an_order_is_taken_from_exactly_the_states_of_the_table(
    cloud: Deployment, guest: int, task: Task, vm: Vm
) -> None:
    put(cloud, guest, vm_state=vm)

    def attempt() -> None:
        with cloud.db.transaction() as tx:
            orders.take(tx, member(), guest, task)
            raise InterruptedError

    refused = vm not in MOVES[task].start
    with pytest.raises(errors.InvalidStateError if refused else InterruptedError) as caught:
        attempt()
    assert not refused or str(caught.value).startswith(f"instance {guest} is {vm}: {MOVES[task].verb} needs it ")


@pytest.mark.parametrize(("task", "vm"), REFUSED)
def test_a_call_is_refused_by_class_and_leaves_one_failed_order(
    cloud: Deployment, guest: int, task: Task, vm: Vm
) -> None:
    put(cloud, guest, vm_state=vm)
    before, row = len(cloud.actions(guest)), cloud.instance(guest)
    with pytest.raises(errors.InvalidStateError, match=f"is {vm}: {MOVES[task].verb} needs it"):
        called(cloud, task, guest, member())
    history = cloud.actions(guest)
    assert (len(history), history[-1].state, history[-1].action) == (before + 1, "failed", task)
    assert f"is {vm}" in str(history[-1].error)
    assert cloud.instance(guest) == row


@pytest.mark.parametrize(("task", "vm"), [(task, vm) for task, vm in REFUSED if task in API])
def test_the_api_refuses_and_writes_nothing_at_all(cloud: Deployment, guest: int, task: Task, vm: Vm) -> None:
    put(cloud, guest, vm_state=vm)
    before, row = cloud.actions(guest), cloud.instance(guest)
    with pytest.raises(errors.InvalidStateError, match=f"is {vm}: {MOVES[task].verb} needs it"):
        API[task](cloud.api, member(), guest)
    assert (cloud.actions(guest), cloud.instance(guest)) == (before, row)


@pytest.mark.parametrize("task", [task for task in Task if task is not Task.DELETING])
def test_a_busy_instance_says_with_what(cloud: Deployment, guest: int, task: Task) -> None:
    put(cloud, guest, vm_state=min(MOVES[task].start), task_state=Task.SNAPSHOTTING)
    with pytest.raises(errors.InstanceBusyError, match=f"instance {guest} is busy: snapshotting"):
        called(cloud, task, guest, member())
    if task in API:
        with pytest.raises(errors.InstanceBusyError, match="busy: snapshotting"):
            API[task](cloud.api, member(), guest)


@pytest.mark.parametrize("task", [task for task in Task if MOVES[task].lockable])
def test_a_locked_instance_is_only_for_administrators(cloud: Deployment, guest: int, task: Task) -> None:
    put(cloud, guest, vm_state=min(MOVES[task].start), task_state=Task.PAUSING, locked=True)
    with pytest.raises(errors.InstanceLockedError, match="only an administrator may act on it"):
        called(cloud, task, guest, member())
    if task in API:
        with pytest.raises(errors.InstanceLockedError):
            API[task](cloud.api, member(), guest)


@pytest.mark.parametrize("task", list(Task))
def test_an_instance_that_is_not_there_is_not_found(cloud: Deployment, guest: int, task: Task) -> None:
    with pytest.raises(errors.InstanceNotFoundError, match="999"):
        called(cloud, task, 999, member())
    if task in API:
        with pytest.raises(errors.InstanceNotFoundError):
            API[task](cloud.api, member(), 999)


def test_a_refused_cast_leaves_its_reason_in_the_journal(cloud: Deployment, guest: int) -> None:
    put(cloud, guest, vm_state=Vm.STOPPED)
    context = replace(member(), request_id="req-cast")
    cloud.ring("h1", "pause_instance", context, instance_id=guest)
    refused = eventually(lambda: cloud.db.query(actions.find_message, "req-cast"))
    assert (refused.state, refused.owner) == ("failed", None)
    assert refused.error == f"instance {guest} is stopped: pause_instance needs it active"


def test_a_cast_to_the_wrong_host_is_refused(cloud: Deployment, guest: int) -> None:
    put(cloud, guest)
    with pytest.raises(errors.ConflictError, match=f"instance {guest} is on host h1, not h2"):
        cloud.call("h2", "pause_instance", member(), instance_id=guest)


def test_a_refused_run_instance_keeps_none_of_its_files(cloud: Deployment, guest: int) -> None:
    put(cloud, guest)
    with pytest.raises(errors.InvalidStateError):
        cloud.call("h1", "run_instance", member(), instance_id=guest, injected_files=[["/x", "eA=="]])
    assert cloud.instance(guest).sealed_files is None


@pytest.mark.parametrize(("verb", "args"), [("reboot_instance", {"reboot_type": "WARM"}), ("no_such_verb", {})])
def test_nonsense_is_refused_and_written_nowhere(cloud: Deployment, guest: int, verb: str, args: Any) -> None:
    put(cloud, guest)
    before = cloud.actions(guest)
    with pytest.raises(errors.ComputeError):
        cloud.call("h1", verb, member(), instance_id=guest, **args)
    assert cloud.actions(guest) == before


def test_a_busy_administrator_is_told_busy_and_not_locked(cloud: Deployment, guest: int) -> None:
    put(cloud, guest, task_state=Task.PAUSING, locked=True)
    with pytest.raises(errors.InstanceBusyError):
        called(cloud, Task.STOPPING, guest, replace(ADMIN, request_id="req-busy"))
