"""Everything that only looks: instances, their history, the documents that nova-manage prints. No bus, no driver."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from compute.context import RequestContext
from compute.db_errors import translated
from compute.errors import ActionNotFoundError, ConflictError, InstanceNotFoundError, InvalidInputError
from db import actions, instances, networks, work
from db.actions import Action
from db.instances import Instance
from db.session import Database, Tx
from virt.power_state import Power

LONGEST_KEY = 255


class Reads:
    """Look-ups for one deployment; non-administrators see their project."""

    def __init__(self, db: Database, *, instance_name_template: str) -> None:
        self._db, self._template = db, instance_name_template
        self._by_name = re.compile(_name_pattern(instance_name_template))

    def resolve(self, context: RequestContext, key: str | int) -> Instance:
        """The instance that an id, a uuid, a hypervisor name or a display name means.

        Raises InstanceNotFoundError, or ConflictError listing the ids when a display name fits several.
        """
        text = str(key)
        if not text or len(text) > LONGEST_KEY:
            shown = f"{text[:40]!r}{'...' if len(text) > 40 else ''}"
            raise InvalidInputError(f"instance {shown}: not an id, a uuid or a name")
        with translated():
            found = self._db.query(self._find, context, text)
        if not found:
            raise InstanceNotFoundError(f"no instance {text}")
        if len(found) > 1:
            raise ConflictError(f"several instances are called {text}: ids {', '.join(str(row.id) for row in found)}")
        return found[0]

    def _find(self, tx: Tx, context: RequestContext, text: str) -> list[Instance]:
        project_id = None if context.is_admin else context.project_id
        instance_id = self._id(text)
        if instance_id is not None:
            rows = instances.by_ids(tx, [instance_id], read_deleted=context.read_deleted)
            rows = [row for row in rows if project_id in {None, row.project_id}]
            if rows:
                return rows
        return instances.find(tx, text, project_id=project_id, read_deleted=context.read_deleted)

    def _id(self, text: str) -> int | None:
        if text.isascii() and text.isdigit() and len(text) < 10:
            return int(text)
        match = self._by_name.fullmatch(text)
        return int(match.group(1), 16) if match else None

    def get_all(
        self,
        context: RequestContext,
        *,
        project_id: str | None = None,
        host: str | None = None,
        reservation_id: str | None = None,
        fixed_ip: str | None = None,
    ) -> list[Instance]:
        """Instances by id; others than administrators get their own project's whatever they ask for."""
        with translated():
            return self._db.query(
                instances.list_all,
                project_id=project_id if context.is_admin else context.project_id,
                host=host,
                reservation_id=reservation_id,
                fixed_ip=fixed_ip,
                read_deleted=context.read_deleted,
            )

    def show(self, context: RequestContext, key: str | int) -> dict[str, Any]:
        """The document of one instance."""
        row = self.resolve(context, key)
        with translated():
            dossier = self._db.query(work.for_instance, row.id, with_groups=True)
        return {
            **self._head(dossier.instance, dossier.flavor),
            "display_description": row.display_description,
            "hostname": row.hostname,
            "image": dossier.image.name if dossier.image else None,
            "kernel": dossier.kernel.name if dossier.kernel else None,
            "ramdisk": dossier.ramdisk.name if dossier.ramdisk else None,
            "memory_mb": row.memory_mb,
            "vcpus": row.vcpus,
            "local_gb": row.local_gb,
            "ephemeral_gb": row.ephemeral_gb,
            "addresses": _addresses(dossier.addresses),
            "security_groups": [group.name for group in dossier.groups],
            "volumes": [_volume(one) for one in dossier.volumes],
            "metadata": dossier.metadata,
            "fault": json.loads(row.fault) if row.fault else None,
            "locked": row.locked,
            "key_name": row.key_name,
            "availability_zone": row.availability_zone,
            "reservation_id": row.reservation_id,
            "launch_index": row.launch_index,
            "epoch": row.epoch,
            "launched_on": row.launched_on,
            "scheduled_at": stamp(row.scheduled_at),
            "updated_at": stamp(row.updated_at),
            "terminated_at": stamp(row.terminated_at),
            "deleted": row.deleted,
        }

    def summary(self, rows: Sequence[Instance]) -> list[dict[str, Any]]:
        """The lines of a list: two more queries for all of them."""
        ids = [row.id for row in rows]
        flavors, held = self._db.query(_flavors_and_addresses, rows, ids)
        by_instance: dict[int, list[networks.HeldAddress]] = {one: [] for one in ids}
        for address in held:
            by_instance[address.instance_id].append(address)
        return [
            {
                **self._head(row, flavors.get(row.instance_type_id, "")),
                "addresses": _addresses(by_instance[row.id]),
                "image_id": row.image_id,
                "kernel_id": row.kernel_id,
                "ramdisk_id": row.ramdisk_id,
                "availability_zone": row.availability_zone,
                "launch_index": row.launch_index,
            }
            for row in rows
        ]

    def _head(self, row: Instance, flavor: str) -> dict[str, Any]:
        return {
            "id": row.id,
            "uuid": row.uuid,
            "name": self._template % row.id,
            "display_name": row.display_name,
            "host": row.host,
            "vm_state": row.vm_state,
            "task_state": row.task_state,
            "power_state": Power(row.power_state).label,
            "instance_type": flavor,
            "project_id": row.project_id,
            "user_id": row.user_id,
            "created_at": stamp(row.created_at),
            "launched_at": stamp(row.launched_at),
        }

    def actions(self, context: RequestContext, key: str | int) -> list[dict[str, Any]]:
        """The history of an instance, oldest first; deleted ones have one too."""
        row = self.resolve(RequestContext(**{**context.to_dict(), "read_deleted": True}), key)
        return [action_document(one, admin=context.is_admin) for one in self._db.query(actions.list_for, row.id)]

    def action(self, context: RequestContext, action_id: int) -> dict[str, Any]:
        """One order; others than administrators see their project's."""
        with translated():
            found = self._db.query(actions.get, action_id)
        if not context.is_admin and found.project_id != context.project_id:
            raise ActionNotFoundError(f"no action {action_id}")
        return action_document(found, admin=context.is_admin)

    def recent_actions(
        self, context: RequestContext, *, state: str | None = None, host: str | None = None, limit: int = 100
    ) -> list[dict[str, Any]]:
        """The latest orders, newest first."""
        found = self._db.query(actions.list_recent, state=state, host=host, limit=limit)
        mine = [one for one in found if context.is_admin or one.project_id == context.project_id]
        return [action_document(one, admin=context.is_admin) for one in mine]


def action_document(row: Action, *, admin: bool) -> dict[str, Any]:
    """One order as a document; the traceback is for administrators."""
    document = {
        "id": row.id,
        "instance_id": row.instance_id,
        "action": row.action,
        "step": row.step,
        "state": row.state,
        "progress": row.progress,
        "attempt": row.attempt,
        "host": row.host,
        "error": row.error,
        "request_id": row.request_id,
        "user_id": row.user_id,
        "project_id": row.project_id,
        "requested_at": stamp(row.requested_at),
        "started_at": stamp(row.started_at),
        "finished_at": stamp(row.finished_at),
        "deadline": stamp(row.deadline),
    }
    return {**document, "traceback": row.traceback} if admin else document


def stamp(when: datetime | None) -> str | None:
    """ISO 8601 in UTC, or None."""
    return None if when is None else when.isoformat(timespec="milliseconds") + "Z"


def _name_pattern(template: str) -> str:
    """A pattern that reads the id out of a name made by a template like `instance-%08x`."""
    match = re.search(r"%0?\d*x", template)
    if match is None:
        return r"(?!)"
    return re.escape(template[: match.start()]) + "([0-9a-f]{1,8})" + re.escape(template[match.end() :])


def _flavors_and_addresses(
    tx: Tx, rows: Sequence[Instance], ids: Sequence[int]
) -> tuple[Mapping[int, str], list[networks.HeldAddress]]:
    if not ids:
        return {}, []
    return instances.flavor_names(tx, [row.instance_type_id for row in rows]), networks.addresses_of(tx, ids)


def _addresses(held: Iterable[networks.HeldAddress]) -> list[dict[str, Any]]:
    return [{"network": one.network.label, "address": one.address, "mac": one.mac} for one in held]


def _volume(row: Any) -> dict[str, Any]:
    return {
        "id": row.volume_id,
        "mountpoint": row.mountpoint,
        "state": row.state,
        "size_gb": row.size,
        "is_root": row.is_root,
        "delete_on_termination": row.delete_on_termination,
    }
