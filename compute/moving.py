"""The API's actions that move an instance: resize with confirm and revert, and live migration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compute.context import RequestContext
from compute.create import Limits
from compute.db_errors import translated
from compute.errors import HostNotFoundError, InvalidInputError, MigrationError, MigrationNotFoundError
from compute.ops import resize
from compute.ordering import Accepted, Ordering
from compute.policy import require_admin
from compute.reads import Reads
from compute.rpcapi import ComputeRPC
from compute.scheduler import Scheduler, request_for
from compute.states import Task
from db import compute_nodes, instance_types, resizes, services, volumes
from db.compute_nodes import ComputeNode
from db.instance_types import InstanceType
from db.instances import Instance
from db.resizes import Resize
from db.session import Database, Tx


class Moving:
    """Part of API; see there for what every method promises."""

    db: Database
    reads: Reads
    scheduler: Scheduler
    rpc: ComputeRPC
    limits: Limits
    orders: Ordering

    def resize(self, context: RequestContext, key: str | int, flavor: str) -> Accepted:
        """Give an instance another size on another host; it is `resized` until confirmed or reverted."""
        row = self.reads.resolve(context, key)
        with translated():
            new = self.db.query(instance_types.get_by_name_or_flavorid, flavor)
        _check_size(row, new)

        def book(tx: Tx, row: Instance) -> Mapping[str, Any]:
            _refuse_bound_volumes(tx, row)
            here = {row.host or "": "the instance is there now"}
            request = request_for(tx, row, availability_zone=row.availability_zone, size=new, exclude=here)
            dest = self.scheduler.place(tx, request)
            migration_id = resize.record(
                tx, row.id, row.vm_state, row.instance_type_id, new.id,
                source=row.host or "", dest=dest, dest_host=None,
            )  # fmt: skip
            return {"host": dest, "migration_id": migration_id, "flavor_id": new.id}

        return self.orders.place(context, row.id, Task.RESIZING, also=book)

    def confirm_resize(self, context: RequestContext, key: str | int) -> Accepted:
        """Keep the new size; what a revert needs is removed."""
        row, move = self._finished(context, key)
        args = {"migration_id": move.id}
        return self.orders.place(context, row.id, Task.CONFIRMING_RESIZE, host=move.source_compute, args=args)

    def revert_resize(self, context: RequestContext, key: str | int) -> Accepted:
        """Go back to the old size on the old host."""
        row, move = self._finished(context, key)
        args = {"migration_id": move.id}
        return self.orders.place(context, row.id, Task.REVERTING_RESIZE, host=move.dest_compute, args=args)

    def has_finished_migration(self, context: RequestContext, key: str | int) -> bool:
        """True if a resize waits to be confirmed or reverted."""
        row = self.reads.resolve(context, key)
        return self.db.query(resizes.latest_finished, row.id) is not None

    def _finished(self, context: RequestContext, key: str | int) -> tuple[Instance, Resize]:
        row = self.reads.resolve(context, key)
        move = self.db.query(resizes.latest_finished, row.id)
        if move is None:
            raise MigrationNotFoundError(f"instance {row.id} has no finished resize to confirm or revert")
        return row, move

    def live_migration(self, context: RequestContext, key: str | int, dest: str) -> Accepted:
        """Move a running instance to `dest`, after 2011.2's checks of both hosts. For administrators."""
        require_admin(context, "live migration")
        row = self.reads.resolve(context, key)
        if row.host is None or row.host == dest:
            raise MigrationError(f"instance {row.id} is on {row.host}: the destination must be another host")
        source, target = self._up(row.host), self._up(dest)
        _check_hypervisors(source, target)
        self.rpc.call(context, dest, "compare_cpu", cpu_info=source.cpu_info or "{}")

        def book(tx: Tx, row: Instance) -> Mapping[str, Any]:
            _refuse_bound_volumes(tx, row)
            if not compute_nodes.claim(tx, dest, vcpus=row.vcpus, memory_mb=row.memory_mb, local_gb=row.local_gb):
                raise MigrationError(f"{dest}: no room for instance {row.id}")
            migration_id = resizes.create(
                tx,
                instance_id=row.id,
                kind="live-migration",
                source_compute=row.host or "",
                dest_compute=dest,
                status="accepted",
                old_vm_state=row.vm_state,
            )
            return {"dest": dest, "migration_id": migration_id}

        return self.orders.place(context, row.id, Task.MIGRATING, also=book)

    def _up(self, host: str) -> ComputeNode:
        with translated():
            node = self.db.query(compute_nodes.find, host)
            alive = self.db.query(services.list_all, host=host, binary="nova-compute")
        if node is None or not alive:
            raise HostNotFoundError(f"no compute host {host}")
        age_s = alive[0].age_s
        if age_s is None or age_s > self.limits.service_down_time:
            raise MigrationError(f"host {host} is down")
        return node


def _refuse_bound_volumes(tx: Tx, row: Instance) -> None:
    for held in volumes.attachments_of(tx, [row.id]):
        if held.host is not None:
            raise MigrationError(f"instance {row.id} has volume {held.volume_id}, which only host {held.host} has")


def _check_size(row: Instance, new: InstanceType) -> None:
    if new.id == row.instance_type_id:
        raise InvalidInputError(f"instance {row.id}: cannot use the same flavor ({new.name})")
    if new.memory_mb < row.memory_mb or new.local_gb < row.local_gb:
        raise InvalidInputError(
            f"instance {row.id}: cannot downsize from {row.memory_mb} MiB, {row.local_gb} GiB "
            f"to {new.name} ({new.memory_mb} MiB, {new.local_gb} GiB)"
        )
    root_gb, new_root_gb = row.local_gb - row.ephemeral_gb, new.local_gb - new.ephemeral_gb
    if new.ephemeral_gb < row.ephemeral_gb or new_root_gb < root_gb:
        raise InvalidInputError(
            f"instance {row.id}: cannot downsize from disks of {root_gb} and {row.ephemeral_gb} GiB "
            f"to {new.name} ({new_root_gb} and {new.ephemeral_gb} GiB)"
        )


def _check_hypervisors(source: ComputeNode, target: ComputeNode) -> None:
    if source.hypervisor_type != target.hypervisor_type:
        raise MigrationError(
            f"{source.host} runs {source.hypervisor_type}, {target.host} runs {target.hypervisor_type}"
        )
    if source.hypervisor_version > target.hypervisor_version:
        raise MigrationError(
            f"{target.host} has an older hypervisor ({target.hypervisor_version}) than {source.host} "
            f"({source.hypervisor_version})"
        )
