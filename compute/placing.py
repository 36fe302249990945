"""The scheduler's half of a build: find a host for an instance that has none, make it the order's, and ring there.

Claim, instance and journal change in one transaction, by compare-and-swap: whoever comes second changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from compute import faults, orders
from compute.context import RequestContext
from compute.errors import (
    ClaimLostError,
    ComputeError,
    ConflictError,
    HostNotFoundError,
    InstanceNotFoundError,
    InvalidInputError,
    NotAuthorizedError,
    NoValidHostError,
)
from compute.recovery import context_of
from compute.rpcapi import ComputeRPC
from compute.scheduler import Scheduler, request_for
from compute.scheduling.request import split_zone
from compute.sealing import Sealer
from compute.states import Task, Vm
from db import actions, instances, placing
from db.actions import Action
from db.errors import DuplicateRowError, RowNotFoundError
from db.instances import Instance
from db.session import Database, Tx, utcnow

LOG = logging.getLogger(__name__)
HOPELESS = (NoValidHostError, HostNotFoundError, NotAuthorizedError, InvalidInputError)
"""What ends a build: asking again would not help. Anything else leaves it for the next look."""


class Placing:
    """Places instances of one deployment."""

    def __init__(
        self, db: Database, scheduler: Scheduler, sealer: Sealer, rpc: ComputeRPC, *, wait_s: float = 0.0
    ) -> None:
        """wait_s: how long an order may wait for hosts that are down and would have it."""
        self._db, self._scheduler, self._sealer, self._rpc = db, scheduler, sealer, rpc
        self._wait_s = wait_s

    def order(self, context: RequestContext, instance_id: int, action_id: int) -> None:
        """Place an order that waits for a host, or let it wait on; see `wait_s`.

        Raises ClaimLostError when it does not wait for one, and why no host will do.
        """
        try:
            action = self._db.query(actions.get, action_id)
        except RowNotFoundError as exc:
            raise ClaimLostError(str(exc)) from exc
        if action.instance_id != instance_id:
            raise ClaimLostError(f"order {action_id} is not about instance {instance_id}")
        self._order(context, action)

    def _order(self, context: RequestContext, action: Action) -> None:
        try:
            placed = self._db.run(self._place_order, action)
        except HOPELESS as exc:
            if isinstance(exc, NoValidHostError) and self._db.run(self._keep_waiting, action, exc):
                return
            self._db.run(_fail_order, action, exc)
            LOG.info("instance %d: no host: %s", action.instance_id, exc)
            raise
        self._ring(context, placed)

    def row(self, context: RequestContext, instance_id: int, availability_zone: str | None) -> None:
        """Place a record that a plain client wrote, writing its order; it may have to wait. Raises why it cannot be."""
        try:
            placed = self._db.run(self._place_row, context, instance_id, availability_zone)
        except DuplicateRowError as exc:
            raise ClaimLostError(f"instance {instance_id}: request {context.request_id} came twice") from exc
        except HOPELESS as exc:
            if isinstance(exc, NoValidHostError) and self._db.run(
                self._accept_row, context, instance_id, availability_zone
            ):
                return
            self._db.run(_fail_row, context, instance_id, exc)
            LOG.info("instance %d: no host: %s", instance_id, exc)
            raise
        self._ring(context, placed)

    def redrive(self, age_s: float = 0.0) -> int:
        """Place every order that has waited `age_s` for a host; how many there were."""
        found = self._db.query(placing.waiting, Task.SPAWNING, age_s)
        for action in found:
            try:
                self._order(context_of(action), action)
            except ComputeError as exc:  # taken meanwhile, or failed with this as its fault
                LOG.debug("order %d: %s", action.id, exc)
        return len(found)

    def require_unplaced(self, instance_id: int) -> None:
        """Raise unless the instance waits to be built and has no host."""
        try:
            row = self._db.query(instances.get, instance_id)
        except RowNotFoundError as exc:
            raise InstanceNotFoundError(str(exc)) from exc
        _require_unplaced(row)

    def _place_order(self, tx: Tx, seen: Action) -> Action:
        action = actions.get(tx, seen.id)
        if action.state != actions.REQUESTED or action.host is not None:
            raise ClaimLostError(f"order {action.id} of instance {action.instance_id} waits for no host")
        args = orders.unpack(self._sealer, action.args)
        row = instances.get(tx, action.instance_id, read_deleted=True)
        host = self._place(tx, row, args.get("zone"), args.get("force_host"))
        # The instance before the journal, as a delete does, so that the two wait for each other and do not deadlock.
        if not _move_in(tx, row.id, host) or not placing.assign(tx, action.id, host):
            raise ClaimLostError(f"order {action.id} of instance {row.id} was taken meanwhile")
        return actions.get(tx, action.id)

    def _keep_waiting(self, tx: Tx, action: Action, why: NoValidHostError) -> bool:
        """Let an order wait for hosts that are down, for a while; False when none of them would have it."""
        if (instances.clock(tx) - action.requested_at).total_seconds() >= self._wait_s:
            return False
        args = orders.unpack(self._sealer, action.args)
        row = instances.get(tx, action.instance_id, read_deleted=True)
        if not self._waits_for_hosts(tx, row, args.get("zone"), args.get("force_host")):
            return False
        LOG.info("instance %d: waits: %s", row.id, why)
        return placing.keep_waiting(tx, action.id, f"waits: {why}")

    def _accept_row(self, tx: Tx, context: RequestContext, instance_id: int, availability_zone: str | None) -> bool:
        """Write the order of a plain client's record, to wait for a host; False, and nothing, when there is no hope."""
        row, args = self._wish(tx, context, instance_id, availability_zone)
        if self._wait_s <= 0 or not self._waits_for_hosts(tx, row, args.get("zone"), args.get("force_host")):
            return False
        orders.take(tx, context, instance_id, Task.SPAWNING)
        _write_order(tx, context, row.id, host=None, args=orders.pack(self._sealer, args))
        LOG.info("instance %d: waits for a host", row.id)
        return True

    def _waits_for_hosts(self, tx: Tx, row: Instance, zone: str | None, force_host: str | None) -> bool:
        return self._scheduler.would_fit(tx, request_for(tx, row, availability_zone=zone, force_host=force_host))

    def _place_row(self, tx: Tx, context: RequestContext, instance_id: int, availability_zone: str | None) -> Action:
        orders.take(tx, context, instance_id, Task.SPAWNING)
        row, args = self._wish(tx, context, instance_id, availability_zone)
        host = self._place(tx, row, args.get("zone"), args.get("force_host"))
        if not _move_in(tx, row.id, host):
            raise ClaimLostError(f"instance {row.id} was taken meanwhile")
        return actions.get(tx, _write_order(tx, context, row.id, host=host, args=orders.pack(self._sealer, args)))

    @staticmethod
    def _wish(
        tx: Tx, context: RequestContext, instance_id: int, availability_zone: str | None
    ) -> tuple[Instance, dict[str, str]]:
        """A plain client's record that waits for a host, and the arguments of its order."""
        row = instances.get(tx, instance_id)
        _require_unplaced(row)
        zone, force_host = split_zone(availability_zone or row.availability_zone, is_admin=context.is_admin)
        args = (("zone", zone), ("force_host", force_host))
        return row, {name: value for name, value in args if value is not None}

    def _place(self, tx: Tx, row: Instance, zone: str | None, force_host: str | None) -> str:
        request = request_for(tx, row, availability_zone=zone, force_host=force_host)
        return self._scheduler.place(tx, request)

    def _ring(self, context: RequestContext, action: Action) -> None:
        LOG.info("instance %d: goes to %s", action.instance_id, action.host)
        if not self._rpc.ring(context, orders.bell(self._sealer, action)):
            LOG.warning("instance %d: %s cannot be told now; it will look", action.instance_id, action.host)


def _take(tx: Tx, context: RequestContext, instance_id: int) -> Instance:
    orders.take(tx, context, instance_id, Task.SPAWNING)
    row = instances.get(tx, instance_id)
    _require_unplaced(row)
    return row


def _require_unplaced(row: Instance) -> None:
    if row.vm_state != Vm.BUILDING or row.host is not None:
        raise ConflictError(f"instance {row.id} is {row.vm_state} on host {row.host}: it waits for no host")


def _move_in(tx: Tx, instance_id: int, host: str) -> bool:
    return instances.set_host(tx, instance_id, Task.SPAWNING, host, scheduled_at=utcnow())


def _write_order(tx: Tx, context: RequestContext, instance_id: int, *, host: str | None, args: str, **also: Any) -> int:
    message_id = context.request_id
    row = orders.journal_row(
        tx, context, Task.SPAWNING, instance_id, host=host, args=args, message_id=message_id, **also
    )
    return actions.create(tx, row)


def _fault(exc: Exception, request_id: str) -> Mapping[str, Any]:
    return {"vm_state": Vm.ERROR.value, "fault": faults.fault(exc, request_id)}


def _fail_order(tx: Tx, action: Action, exc: Exception) -> None:
    instances.end_task(tx, action.instance_id, Task.SPAWNING, _fault(exc, action.request_id))
    if not placing.fail(tx, action.id, faults.message_of(exc)):
        raise ClaimLostError(f"order {action.id} of instance {action.instance_id} was taken meanwhile")


def _fail_row(tx: Tx, context: RequestContext, instance_id: int, exc: Exception) -> None:
    _take(tx, context, instance_id)
    ended = {"state": actions.FAILED, "error": faults.message_of(exc), "finished_at": utcnow()}
    _write_order(tx, context, instance_id, host=None, args="{}", **ended)
    instances.end_task(tx, instance_id, Task.SPAWNING, _fault(exc, context.request_id))
