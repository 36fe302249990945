"""Deadlines: an order that nobody took, or that does not end, is failed with its reason and gives back what it held."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from compute import faults, orders
from compute.errors import AbortedError
from compute.host import Host
from compute.ops import migrate, resize, snapshot
from compute.ops.volumes import drop_reservation
from compute.states import MOVES, Task, Vm
from db import actions, compute_nodes, instances, networks, resizes
from db.actions import Action
from db.instances import Instance
from db.session import Tx

LOG = logging.getLogger(__name__)
UNCLAIMED = "nobody took it before its deadline"


def run(host: Host) -> None:
    """End the orders whose deadline passed, each by itself.

    Requested ones of any host fail; running ones of this host are cancelled, and failed without it when that does not
    help; running ones of a host whose daemon is dead fail, keeping what that host may still use.
    """
    for action in host.db.query(actions.expired_requests):
        _guarded(action, host, fail_unclaimed, UNCLAIMED)
    expired = set(host.db.query(actions.expired_running, host.settings.host))
    for job in host.tasks.running():
        if job.action.id in expired:
            host.tasks.expire(job)
    for action in host.db.query(actions.expired_on_dead_hosts, host.settings.service_down_time):
        if action.host != host.settings.host:
            _guarded(action, host, fail_lost, f"the daemon of {action.host} is silent")


def _guarded(action: Action, host: Host, end: Callable[[Tx, Action, str], bool], reason: str) -> None:
    try:
        ended = host.db.run(end, action, reason)
    except Exception:  # a record that cannot be ended must not keep the others from theirs
        LOG.exception("order %d (%s of instance %d)", action.id, action.action, action.instance_id)
        return
    if ended:
        LOG.error("instance %d: %s on %s: %s", action.instance_id, action.action, action.host, reason)


def fail_unclaimed(tx: Tx, action: Action, reason: str) -> bool:
    """End a requested order as failed, with instance and resources; False when somebody took it meanwhile.

    A resize whose destination is gone after the disks have left goes back to its source instead.
    """
    if action.step == "finish_resize":
        return _back_to_source(tx, action, reason)
    return _fail(tx, action, reason, clean=True)


def fail_lost(tx: Tx, action: Action, reason: str) -> bool:
    """End a running order whose daemon is dead; what its host may still use stays with the instance."""
    return _fail(tx, action, reason, clean=False)


def fail_broken(tx: Tx, action_id: int, owner: str, reason: str) -> bool:
    """End an order of this daemon that could not even be begun; False when it was ended by the claim around it."""
    action = actions.get(tx, action_id)
    if action.state != actions.RUNNING or action.owner != owner:
        return False
    return _fail(tx, action, reason, clean=False)


def _fail(tx: Tx, action: Action, reason: str, *, clean: bool) -> bool:
    task = Task(action.action)
    error = AbortedError(f"{action.step} on {action.host}: {reason}")
    if not actions.fail_seen(tx, action, str(error)):
        return False
    row = instances.get(tx, action.instance_id, read_deleted=True)
    changes: dict[str, Any] = {"fault": faults.fault(error, action.request_id), "vm_state": _left_in(action, row)}
    if clean and task is Task.SPAWNING:
        changes["host"] = None
    if instances.end_task(tx, row.id, task, changes) and (clean or task not in _KEPT):
        _GIVE_BACK.get(task, _nothing)(tx, row, action)
    return True


def _left_in(action: Action, row: Instance) -> str:
    """The vm_state that is left: what nobody began has changed nothing, unless it was to make or end the instance."""
    task = Task(action.action)
    untouched = action.state == actions.REQUESTED and action.step == MOVES[task].verb
    if untouched and task not in {Task.SPAWNING, Task.DELETING}:
        return row.vm_state
    if action.step == "finish_revert_resize":
        return Vm.ERROR
    return orders.failed_state(task, row.vm_state).value


def _back_to_source(tx: Tx, action: Action, reason: str) -> bool:
    """Have the source start the guest again from the disks that it keeps."""
    move = resizes.latest(tx, action.instance_id)
    if move is None:
        return _fail(tx, action, reason, clean=True)
    args = json.dumps({"migration_id": move.id, "failure": f"{action.host}: {reason}"})
    deadline_s = MOVES[Task.REVERTING_RESIZE].deadline_s
    return actions.redirect(
        tx, action, step="finish_revert_resize", host=move.source_compute, args=args, deadline_s=deadline_s
    )


def _nothing(_tx: Tx, _row: Instance, _action: Action) -> None:
    """The order held nothing."""


def _give_back_build(tx: Tx, row: Instance, action: Action) -> None:
    networks.release(tx, row.id)
    drop_reservation(tx, row.id)
    if action.host is not None and row.host is not None:
        compute_nodes.release(tx, action.host, vcpus=row.vcpus, memory_mb=row.memory_mb, local_gb=row.local_gb)


def _give_back_volume(tx: Tx, row: Instance, _action: Action) -> None:
    drop_reservation(tx, row.id)


def _give_back_image(tx: Tx, _row: Instance, action: Action) -> None:
    image_id = json.loads(action.args).get("image_id")
    if image_id is not None:
        snapshot.discard(tx, image_id)


def _give_back_resize(tx: Tx, row: Instance, _action: Action) -> None:
    move = resizes.latest(tx, row.id)
    if move is not None:
        resize.abandon(tx, move)


def _give_back_migration(tx: Tx, row: Instance, _action: Action) -> None:
    move = resizes.latest(tx, row.id)
    if move is not None:
        migrate.give_back(tx, row, move)


_GIVE_BACK: Mapping[Task, Callable[[Tx, Instance, Action], None]] = {
    Task.SPAWNING: _give_back_build,
    Task.ATTACHING_VOLUME: _give_back_volume,
    Task.DETACHING_VOLUME: _give_back_volume,
    Task.SNAPSHOTTING: _give_back_image,
    Task.RESIZING: _give_back_resize,
    Task.MIGRATING: _give_back_migration,
}
_KEPT = frozenset({Task.SPAWNING, Task.ATTACHING_VOLUME, Task.RESIZING, Task.MIGRATING})  # what a host may still use
