"""Deadlines: an order that nobody took, or that does not end, is failed with its reason and gives back what it held."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from compute import faults, orders
from compute.errors import AbortedError
from compute.host import Host
from compute.ops.volumes import drop_reservation
from compute.states import Task
from db import actions, compute_nodes, instances, networks
from db.actions import Action
from db.instances import Instance
from db.session import Tx

LOG = logging.getLogger(__name__)


def run(host: Host) -> None:
    """Fail requested orders of any host whose deadline passed; cancel, then abandon, running ones of this host."""
    for action in host.db.query(actions.expired_requests):
        if host.db.run(fail_unclaimed, action, "nobody took it before its deadline"):
            LOG.error("instance %d: %s failed: %s did not take it", action.instance_id, action.action, action.host)
    expired = set(host.db.query(actions.expired_running, host.settings.host))
    for job in host.tasks.running():
        if job.action.id in expired:
            host.tasks.expire(job)


def fail_unclaimed(tx: Tx, action: Action, reason: str) -> bool:
    """End a requested order as failed, with instance and resources; False when somebody took it meanwhile."""
    task = Task(action.action)
    row = instances.get(tx, action.instance_id, read_deleted=True)
    error = AbortedError(f"{action.step} on {action.host}: {reason}")
    changes = {
        "fault": faults.fault(error, action.request_id),
        "vm_state": orders.failed_state(task, row.vm_state).value,
    }
    if task is Task.SPAWNING:
        changes["host"] = None  # type: ignore[assignment]
    if instances.end_task(tx, row.id, task, changes):
        _GIVE_BACK.get(task, _nothing)(tx, row, action)
    return actions.fail_requested(tx, action.id, str(error))


def _nothing(_tx: Tx, _row: Instance, _action: Action) -> None:
    """The order held nothing."""


def _give_back_build(tx: Tx, row: Instance, action: Action) -> None:
    networks.release(tx, row.id)
    if action.host is not None:
        compute_nodes.release(tx, action.host, vcpus=row.vcpus, memory_mb=row.memory_mb, local_gb=row.local_gb)


def _give_back_volume(tx: Tx, row: Instance, _action: Action) -> None:
    drop_reservation(tx, row.id)


_GIVE_BACK: Mapping[Task, Callable[[Tx, Instance, Action], None]] = {
    Task.SPAWNING: _give_back_build,
    Task.ATTACHING_VOLUME: _give_back_volume,
    Task.DETACHING_VOLUME: _give_back_volume,
}
