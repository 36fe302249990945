"""Volumes of instances. The attachment row is reserved before the host is asked, so one volume has one user."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial

from compute import block_devices
from compute.errors import ComputeError, ConflictError, InvalidStateError, VolumeNotFoundError
from compute.specs import SpecBuilder
from compute.volume import Maker
from compute.work import Work, Write
from db import volumes
from db.session import Tx
from db.volumes import Attachment
from virt.driver import AttachesVolumes, BootsFromVolumes, require
from virt.spec import VolumeAttachment

LOG = logging.getLogger(__name__)


def attach(work: Work, specs: SpecBuilder) -> None:
    """Plug a reserved volume in; on a failure the reservation is given back."""
    row = _reserved(work)
    volume = specs.attachment(row)
    give_back_on_failure(work, row, volume)
    require(work.driver, AttachesVolumes).attach_volume(work.spec, volume)
    work.when_done.append(lambda tx: volumes.set_attached(tx, row.id))


def detach(work: Work, specs: SpecBuilder) -> None:
    """Unplug a volume; it stays attached when the guest will not let go."""
    row = _attachment(work)
    work.when_failed.append(lambda tx: volumes.undo_detaching(tx, row.id))
    if row.is_root:
        raise InvalidStateError(f"volume {row.volume_id}: instance {row.instance_id} boots from it")
    if row.state == "attaching":
        raise ConflictError(f"volume {row.volume_id} is still being attached to instance {row.instance_id}")
    work.db.run(volumes.set_detaching, row.id)
    require(work.driver, AttachesVolumes).detach_volume(work.spec, specs.attachment(row))
    work.when_done.append(lambda tx: volumes.set_detached(tx, row.id))


def give_back_on_failure(work: Work, row: Attachment, volume: VolumeAttachment) -> None:
    """If the attaching fails, the volume is free once the guest surely has let go of it; until then it is attached."""
    driver = require(work.driver, AttachesVolumes)
    work.undo.callback(driver.detach_volume, work.spec, volume)
    work.when_clean.append(lambda tx: volumes.set_detached(tx, row.id))
    work.when_unclean.append(lambda tx: volumes.set_attached(tx, row.id))


def give_back(work: Work, specs: SpecBuilder) -> None:
    """If the order fails, an attachment that was being made is gone, and one that was being ended is there still."""
    row = work.db.query(volumes.attachment_of, work.args["volume_id"])
    if row is None or row.instance_id != work.instance.id:
        return
    if row.state == "attaching":
        give_back_on_failure(work, row, specs.attachment(row))
    else:
        work.when_failed.append(lambda tx: volumes.undo_detaching(tx, row.id))


def have_from_the_start(work: Work) -> None:
    """A build's volumes are the guest's once it runs; when it fails they are free, unless it may still have them."""
    mapping = work.args.get("block_device_mapping")
    if mapping and not work.dossier.volumes:
        work.db.run(block_devices.reserve, work.instance.id, block_devices.read(mapping))
        work.reload()
    if work.dossier.volumes and work.spec.root_volumes:
        require(work.driver, BootsFromVolumes)
    for row in work.dossier.volumes:
        work.when_done.append(partial(_set_attached, attachment_id=row.id))
        work.when_clean.append(partial(_set_detached, attachment_id=row.id))
        work.when_unclean.append(partial(_set_attached, attachment_id=row.id))


def _set_attached(tx: Tx, *, attachment_id: int) -> None:
    volumes.set_attached(tx, attachment_id)


def _set_detached(tx: Tx, *, attachment_id: int) -> None:
    volumes.set_detached(tx, attachment_id)


def end_with_instance(rows: Iterable[Attachment], host: str, maker: Maker, *, last_leg: bool) -> list[Write]:
    """Remove the volumes that go with their instance: their bytes here, their records by what is returned.

    Bytes that one host has are removed there, and those that every host sees at the end. The guest must be gone.
    """
    ended: list[Write] = []
    for row in rows:
        if not row.delete_on_termination or row.state == "attaching":
            continue
        if row.managed and (row.host == host or (row.host is None and last_leg)):
            try:
                maker.remove(row.provider_location, row.host)
            except ComputeError as exc:  # an instance can always be deleted; the volume is there for who looks into it
                LOG.warning("instance %d: volume %d stays: %s", row.instance_id, row.volume_id, exc)
                continue
        ended.append(partial(_end, attachment_id=row.id, volume_id=row.volume_id))
    return ended


def _end(tx: Tx, *, attachment_id: int, volume_id: int) -> None:
    volumes.set_detached(tx, attachment_id)
    volumes.delete(tx, volume_id)


def drop_reservation(tx: Tx, instance_id: int) -> None:
    """Settle the attachments of an instance whose order nobody took: none is under way any more."""
    for row in volumes.attachments_of(tx, [instance_id]):
        if row.state == "attaching":
            volumes.set_detached(tx, row.id)
        elif row.state == "detaching":
            volumes.undo_detaching(tx, row.id)


def _attachment(work: Work) -> Attachment:
    volume_id: int = work.args["volume_id"]
    row = work.db.query(volumes.attachment_of, volume_id)
    if row is None or row.instance_id != work.instance.id:
        raise VolumeNotFoundError(f"volume {volume_id} is not attached to instance {work.instance.id}")
    expected = work.args.get("attachment_id")
    if expected not in {None, row.id}:
        raise ConflictError(f"volume {volume_id} has been attached anew since: this order is for an older attachment")
    return row


def _reserved(work: Work) -> Attachment:
    """The reservation that the API made, or one made now for a plain cast."""
    volume_id: int = work.args["volume_id"]
    if work.db.query(volumes.attachment_of, volume_id) is None:
        work.db.run(volumes.reserve_attachment, volume_id, work.instance.id, work.args["mountpoint"])
    row = _attachment(work)
    if row.state == "attached":
        raise ConflictError(f"volume {volume_id} is attached to instance {row.instance_id} at {row.mountpoint}")
    return row
