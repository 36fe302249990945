"""What callers use: validate, check quota, write the work order, ring the doorbell.

Every method takes a RequestContext first and raises compute.errors. An operation is accepted when its order is in the
database; a broker that cannot be told is no failure, the host finds the order by itself (Accepted.rang says).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from oslo_config.cfg import ConfigOpts

from compute import create, hosts, orders
from compute.context import RequestContext
from compute.create import BootRequest, Creator, Limits
from compute.db_errors import translated
from compute.describing import Describing
from compute.errors import (
    AbortedError,
    ComputeError,
    ConflictError,
    InstanceBusyError,
    InstanceNotFoundError,
    InvalidInputError,
    InvalidStateError,
)
from compute.moving import Moving
from compute.ops import lifecycle
from compute.ops.guest import generate_password
from compute.ordering import Accepted, Ordering
from compute.policy import require_admin
from compute.reads import Reads
from compute.rpcapi import ComputeRPC
from compute.scheduler import Scheduler
from compute.sealing import Sealer
from compute.states import MOVES, Task
from compute.storing import Storing
from db import actions, instances
from db.errors import RowNotFoundError
from db.session import Database, Tx

POLL_S = 0.05


class API(Moving, Storing, Describing):
    """Every action on instances: life cycle here, moves in Moving, disks in Storing, lock, metadata in Describing."""

    def __init__(
        self,
        db: Database,
        *,
        reads: Reads,
        scheduler: Scheduler,
        sealer: Sealer,
        rpc: ComputeRPC,
        limits: Limits,
        close: Callable[[], None],
    ) -> None:
        self.db, self.reads, self.scheduler, self.sealer, self.rpc = db, reads, scheduler, sealer, rpc
        self.limits, self._close = limits, close
        self.orders = Ordering(db, reads, sealer, rpc)
        self.creator = Creator(db, scheduler, sealer, limits)

    @classmethod
    def from_conf(cls, conf: ConfigOpts, db: Database, scheduler: Scheduler) -> API:
        """An API over this configuration; it opens the bus when it first needs it."""
        bus: list[Any] = []

        def client(topic: str, version: str) -> Any:
            from compute.messaging.transport import Bus

            if not bus:
                bus.append(Bus(conf))
            return bus[0].client(topic, version)

        def close() -> None:
            for one in bus:
                one.close()
            db.dispose()

        return cls(
            db,
            reads=Reads(db, instance_name_template=conf.instance_name_template),
            scheduler=scheduler,
            sealer=Sealer(conf.seal_key_file),
            rpc=ComputeRPC(client, topic=conf.compute_topic, scheduler_topic=conf.scheduler_topic),
            limits=Limits.from_conf(conf),
            close=close,
        )

    def close(self) -> None:
        """Close bus and database."""
        self._close()

    # -- life cycle ---------------------------------------------------------------------------------------------------

    def create(self, context: RequestContext, **request: Any) -> list[Accepted]:
        """Accept new instances (the fields of create.BootRequest): all of min_count to max_count that fit, or none.

        Raises QuotaError, NoValidHostError, InvalidInputError or what the request names is not found.
        """
        boot = BootRequest(**request)
        with translated():
            bells = self.creator.accept(context, boot)
        return [self.orders.ring(context, one) for one in bells]

    def delete(self, context: RequestContext, key: str | int) -> Accepted:
        """End an instance, whatever it is doing; one that is on no host is ended at once."""
        row = self.reads.resolve(context, key)
        with translated():
            if row.host is None and self.db.run(_delete_locally, context, row.id):
                return Accepted(instance_id=row.id, action_id=None)
        try:
            return self.orders.place(context, row, Task.DELETING)
        except InstanceBusyError:
            return self._already_deleting(context, row.id)

    def _already_deleting(self, context: RequestContext, instance_id: int) -> Accepted:
        """A second delete is the first one, rung for again."""
        try:
            order = self.db.query(actions.latest_open, instance_id)
        except RowNotFoundError as exc:
            raise InstanceNotFoundError(f"instance {instance_id} has just been deleted, or failed to be") from exc
        if order.state == actions.REQUESTED:
            return self.orders.ring(context, orders.bell(self.sealer, order))
        return Accepted(instance_id=instance_id, action_id=order.id)

    def start(self, context: RequestContext, key: str | int) -> Accepted:
        """Power a stopped instance on."""
        return self.orders.place(context, key, Task.STARTING)

    def stop(self, context: RequestContext, key: str | int) -> Accepted:
        """Shut an instance down."""
        return self.orders.place(context, key, Task.STOPPING)

    def reboot(self, context: RequestContext, key: str | int, *, soft: bool = False) -> Accepted:
        """Restart an instance; soft asks the guest first."""
        task, word = (Task.REBOOTING, "SOFT") if soft else (Task.REBOOTING_HARD, "HARD")
        return self.orders.place(context, key, task, args={"reboot_type": word})

    def pause(self, context: RequestContext, key: str | int) -> Accepted:
        """Freeze an instance in memory."""
        return self.orders.place(context, key, Task.PAUSING)

    def unpause(self, context: RequestContext, key: str | int) -> Accepted:
        """Let it go on."""
        return self.orders.place(context, key, Task.UNPAUSING)

    def suspend(self, context: RequestContext, key: str | int) -> Accepted:
        """Save an instance's memory to disk and stop it."""
        return self.orders.place(context, key, Task.SUSPENDING)

    def resume(self, context: RequestContext, key: str | int) -> Accepted:
        """Go on from the saved memory."""
        return self.orders.place(context, key, Task.RESUMING)

    def rescue(self, context: RequestContext, key: str | int) -> Accepted:
        """Boot an instance from the rescue image."""
        return self.orders.place(context, key, Task.RESCUING)

    def unrescue(self, context: RequestContext, key: str | int) -> Accepted:
        """Boot it from its own disk again."""
        return self.orders.place(context, key, Task.UNRESCUING)

    # -- inside the guest ---------------------------------------------------------------------------------------------

    def set_admin_password(self, context: RequestContext, key: str | int, new_pass: str | None = None) -> Accepted:
        """Set the guest's administrator password; one is made up, and returned, when none is given."""
        password = new_pass or generate_password(self.limits.password_length)
        if len(password) > 255 or "\0" in password:
            raise InvalidInputError("password: at most 255 characters, without NUL")
        done = self.orders.place(context, key, Task.SETTING_PASSWORD, args={"new_pass": password})
        return replace(done, password=password)

    def inject_file(self, context: RequestContext, key: str | int, path: str, contents: bytes) -> Accepted:
        """Write a file in the guest."""
        args = create.file_args(self.limits, path, contents)
        return self.orders.place(context, key, Task.INJECTING_FILE, args=args)

    def reset_network(self, context: RequestContext, key: str | int) -> Accepted:
        """Have the guest configure its network anew."""
        return self.orders.place(context, key, Task.RESETTING_NETWORK)

    def inject_network_info(self, context: RequestContext, key: str | int) -> Accepted:
        """Hand the guest its network facts."""
        return self.orders.place(context, key, Task.INJECTING_NETWORK_INFO)

    # -- answers and waiting ------------------------------------------------------------------------------------------

    def get_console_output(self, context: RequestContext, key: str | int) -> str:
        """The end of the console log."""
        return str(self._ask(context, key, "get_console_output"))

    def get_ajax_console(self, context: RequestContext, key: str | int) -> dict[str, Any]:
        """token, host and port of the serial console."""
        return dict(self._ask(context, key, "get_ajax_console"))

    def get_vnc_console(self, context: RequestContext, key: str | int) -> dict[str, Any]:
        """token, host and port of the screen."""
        return dict(self._ask(context, key, "get_vnc_console"))

    def get_diagnostics(self, context: RequestContext, key: str | int) -> dict[str, Any]:
        """The guest's counters."""
        return dict(self._ask(context, key, "get_diagnostics"))

    def _ask(self, context: RequestContext, key: str | int, verb: str) -> Any:
        row = self.reads.resolve(context, key)
        if row.host is None:
            raise InvalidStateError(f"instance {row.id} is {row.vm_state} and on no host")
        return self.rpc.call(context, row.host, verb, instance_id=row.id)

    def update_available_resource(self, context: RequestContext, host: str) -> None:
        """Have a host write what it has and uses now."""
        hosts.require(self.db, host)
        self.rpc.call(context, host, "update_available_resource")

    def audit_host(self, context: RequestContext, host: str, *, repair: bool = False) -> list[dict[str, Any]]:
        """What a host has that no record explains, and lacks; `repair` removes files of deleted guests."""
        hosts.require(self.db, host)
        return list(self.rpc.call(context, host, "audit_host", **({"repair": True} if repair else {})))

    def describe_resource(self, context: RequestContext, host: str) -> dict[str, Any]:
        """2011.2's show_host_resources: {resource: totals and used, usage: {project: ...}}. For administrators."""
        require_admin(context, "describing a host")
        return hosts.describe_resource(self.db, host)

    def wait(
        self,
        context: RequestContext,
        accepted: Accepted,
        timeout_s: float,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Follow an order to its end and return its document.

        Raises AbortedError or ComputeError with the fault when it did not succeed, TimeoutError when it is not over.
        """
        if accepted.action_id is None:
            return {"state": "done", "instance_id": accepted.instance_id}
        until = time.monotonic() + timeout_s
        while True:
            document = self.reads.action(context, accepted.action_id)
            if on_progress is not None:
                on_progress(document)
            if document["state"] not in actions.OPEN:
                return _outcome(document)
            if time.monotonic() > until:
                what = f"{document['action']} of instance {accepted.instance_id}"
                raise TimeoutError(f"{what} is {document['state']} after {timeout_s:g} s")
            time.sleep(POLL_S)


def _outcome(document: dict[str, Any]) -> dict[str, Any]:
    if document["state"] == actions.DONE:
        return document
    kind = AbortedError if document["state"] == actions.ABORTED else ComputeError
    raise kind(document["error"] or f"{document['action']} {document['state']}")


def _delete_locally(tx: Tx, context: RequestContext, instance_id: int) -> bool:
    """End the record of an instance that no host has; False when a host, or another delete, has it meanwhile."""
    seen = instances.get(tx, instance_id)
    if seen.host is not None or not orders.take_for_delete(tx, context, seen):
        return False
    row = instances.get(tx, instance_id)
    if row.host is not None:
        raise ConflictError(f"instance {instance_id} has just been placed on {row.host}: delete it again")
    order = orders.journal_row(tx, context, Task.DELETING, instance_id, host=None, args="{}", state=actions.DONE)
    actions.create(tx, order)
    lifecycle.release_everything(tx, row)
    instances.end_task(tx, instance_id, Task.DELETING, {"vm_state": MOVES[Task.DELETING].end, **lifecycle.gone()})
    return True


__all__ = ["API", "Accepted", "BootRequest"]
