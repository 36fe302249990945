"""The API's actions on disks: snapshot to a new image, attach and detach volumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compute import valid
from compute.block_devices import DEVICE
from compute.context import RequestContext
from compute.db_errors import translated
from compute.errors import DuplicateError, InvalidInputError, InvalidStateError, VolumeNotFoundError
from compute.ordering import Accepted, Ordering
from compute.policy import may_see
from compute.states import Task
from db import images, volumes
from db.instances import Instance
from db.session import Database, Tx


class Storing:
    """Part of API; see there for what every method promises."""

    db: Database
    orders: Ordering

    def snapshot(self, context: RequestContext, key: str | int, name: str) -> Accepted:
        """Make an image called `name` of the root disk; Accepted.image_id is its record, `saving` until it is done."""
        valid.name("image name", name)

        def reserve(tx: Tx, row: Instance) -> Mapping[str, Any]:
            _refuse_volume_root(tx, row)
            image_id = images.create(
                tx,
                name=name,
                status="saving",
                disk_format="qcow2",
                location="",
                project_id=row.project_id,
                kernel_id=row.kernel_id,
                ramdisk_id=row.ramdisk_id,
                properties={"instance_uuid": row.uuid, "user_id": context.user_id, "os_type": row.os_type},
            )
            return {"image_id": image_id}

        try:
            return self.orders.place(context, key, Task.SNAPSHOTTING, also=reserve)
        except DuplicateError as exc:
            raise DuplicateError(f"an image called {name} exists") from exc

    def attach_volume(self, context: RequestContext, key: str | int, volume_id: int, device: str) -> Accepted:
        """Plug a volume in as `device` (/dev/vdb). It is reserved from now on."""
        if not DEVICE.fullmatch(device):
            raise InvalidInputError(f"device {device!r:.60}: must look like /dev/vdb")
        self._require_volume(context, volume_id)

        def reserve(tx: Tx, row: Instance) -> Mapping[str, Any]:
            attachment_id = volumes.reserve_attachment(tx, volume_id, row.id, device)
            return {"volume_id": volume_id, "mountpoint": device, "attachment_id": attachment_id}

        return self.orders.place(context, key, Task.ATTACHING_VOLUME, also=reserve)

    def detach_volume(self, context: RequestContext, volume_id: int) -> Accepted:
        """Unplug a volume from the instance that has it."""
        self._require_volume(context, volume_id)
        attachment = self.db.query(volumes.attachment_of, volume_id)
        if attachment is None:
            raise InvalidStateError(f"volume {volume_id} is not attached")
        found = attachment
        if found.is_root:
            raise InvalidStateError(f"volume {volume_id}: instance {found.instance_id} boots from it")

        def mark(tx: Tx, _row: Instance) -> Mapping[str, Any]:
            if not volumes.set_detaching(tx, found.id):
                raise InvalidStateError(f"volume {volume_id} is {found.state}, not attached")
            return {"volume_id": volume_id, "attachment_id": found.id}

        return self.orders.place(context, found.instance_id, Task.DETACHING_VOLUME, also=mark)

    def _require_volume(self, context: RequestContext, volume_id: int) -> None:
        with translated():
            volume = self.db.query(volumes.get, volume_id)
        if not may_see(context, volume.project_id):
            raise VolumeNotFoundError(f"no volume {volume_id}")


def _refuse_volume_root(tx: Tx, row: Instance) -> None:
    for held in volumes.attachments_of(tx, [row.id]):
        if held.is_root:
            raise InvalidStateError(
                f"instance {row.id} boots from volume {held.volume_id}: snapshot the volume where it is stored"
            )
