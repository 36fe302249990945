"""Volumes and their attachments: a volume is on one instance at most, and a straggler's news of an old one is void."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from db import rows
from db.errors import (
    MountpointTakenError,
    RowNotFoundError,
    VolumeElsewhereError,
    VolumeInUseError,
    VolumeStatusError,
)
from db.models import instances, volume_attachments, volumes
from db.session import Tx, utcnow


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume; `size` in GiB. managed: its bytes were made with the record, and go with it.

    status: creating, available, attaching, in-use, detaching, error or deleting; attach_status: detached, attaching,
    attached or detaching.
    """

    id: int
    display_name: str | None
    display_description: str | None
    user_id: str
    project_id: str
    host: str | None
    size: int
    availability_zone: str | None
    status: str
    attach_status: str
    provider_location: str | None
    sealed_auth: str | None
    managed: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Attachment:
    """A live attachment with what a host needs of its volume; `state` is attaching, attached or detaching.

    is_root: the instance boots from it. delete_on_termination: the volume goes with the instance.
    """

    id: int
    volume_id: int
    instance_id: int
    mountpoint: str
    state: str
    is_root: bool
    delete_on_termination: bool
    size: int
    host: str | None
    provider_location: str | None
    sealed_auth: str | None
    managed: bool


_V, _A, _I = volumes.c, volume_attachments.c, instances.c
_LIVE = rows.select_live(Volume, volumes).order_by(_V.id)
_BY_ID = _LIVE.where(_V.id == sa.bindparam("volume_id"))
_ATTACHED = (
    sa.select(_A.id, _A.volume_id, _A.instance_id, _A.mountpoint, _A.state, _A.is_root, _A.delete_on_termination)
    .add_columns(_V.size, _V.host, _V.provider_location, _V.sealed_auth, _V.managed)
    .join_from(volume_attachments, volumes, _V.id == _A.volume_id)
    .where(_A.live == 1)
    .order_by(_A.instance_id, _A.mountpoint)
)
_ATTACHMENTS_OF = _ATTACHED.where(_A.instance_id.in_(sa.bindparam("instance_ids", expanding=True)))
_ATTACHMENT_OF = _ATTACHED.where(_A.volume_id == sa.bindparam("volume_id"))
_HOLDER = (
    sa.select(_V.status, _V.host, _A.instance_id, _A.mountpoint)
    .join_from(volumes, volume_attachments, sa.and_(_A.volume_id == _V.id, _A.live == 1), isouter=True)
    .where(_V.id == sa.bindparam("volume_id"), _V.deleted == sa.false())
)


def create(tx: Tx, *, user_id: str, project_id: str, size: int, status: str = "creating", **facts: Any) -> int:
    """Add a volume of `size` GiB and return its id. `facts`: the other columns of Volume."""
    values = {"user_id": user_id, "project_id": project_id, "size": size, "status": status}
    return rows.insert(tx, volumes, {"attach_status": "detached", **values, **facts})


def get(tx: Tx, volume_id: int) -> Volume:
    """The live volume with this id."""
    return rows.one(tx, Volume, _BY_ID, "volume", volume_id, {"volume_id": volume_id})


def list_all(tx: Tx, *, project_id: str | None = None, host: str | None = None) -> list[Volume]:
    """Live volumes by id, of one project or host when given."""
    statement = _LIVE
    if project_id is not None:
        statement = statement.where(_V.project_id == project_id)
    if host is not None:
        statement = statement.where(_V.host == host)
    return rows.every(tx, Volume, statement)


def set_status(tx: Tx, volume_id: int, expected: str | Collection[str], status: str, **facts: Any) -> bool:
    """Move on from an expected status, writing `facts` along; False when it was in another or is gone."""
    allowed = [expected] if isinstance(expected, str) else list(expected)
    statement = sa.update(volumes).where(_V.id == volume_id, _V.deleted == sa.false(), _V.status.in_(allowed))
    return tx.execute(statement.values(status=status, updated_at=utcnow(), **facts)).rowcount == 1


def begin_delete(tx: Tx, volume_id: int) -> None:
    """From now on nobody attaches this volume: its bytes may go, then `delete` forgets it.

    One that is still being created may be ended too: who creates it finds that out. Raises VolumeInUseError,
    VolumeStatusError or RowNotFoundError.
    """
    _end(tx, volume_id, ["creating", "available", "error", "deleting"], status="deleting")


def delete(tx: Tx, volume_id: int) -> None:
    """Forget a volume that is available, in error or being deleted, and on no instance.

    Raises VolumeInUseError, VolumeStatusError or RowNotFoundError otherwise.
    """
    ended = {"deleted": True, "deleted_at": utcnow(), "terminated_at": utcnow()}
    _end(tx, volume_id, ["available", "error", "deleting"], **ended)


def _end(tx: Tx, volume_id: int, statuses: list[str], **changes: Any) -> None:
    held = sa.exists().where(_A.volume_id == volume_id, _A.live == 1)
    statement = sa.update(volumes).where(_V.id == volume_id, _V.deleted == sa.false(), _V.status.in_(statuses), ~held)
    if tx.execute(statement.values(updated_at=utcnow(), **changes)).rowcount != 1:
        raise _unavailable(tx, volume_id)


_HOST_OF = sa.select(_I.host).where(_I.id == sa.bindparam("for_instance")).scalar_subquery()
_RESERVE = (
    sa.update(volumes)
    .where(
        _V.id == sa.bindparam("wanted"),
        _V.deleted == sa.false(),
        _V.status == "available",
        sa.or_(_V.host.is_(None), _HOST_OF.is_(None), _V.host == _HOST_OF),
    )
    .values(status="attaching", attach_status="attaching", updated_at=utcnow())
)


def reserve_attachment(
    tx: Tx,
    volume_id: int,
    instance_id: int,
    mountpoint: str,
    *,
    is_root: bool = False,
    delete_on_termination: bool = False,
) -> int:
    """Take an available volume for an instance and return the attachment's id: two statements, any number may race.

    Raises VolumeInUseError (naming the instance that has it), VolumeElsewhereError when only another host has it,
    VolumeStatusError, MountpointTakenError, or RowNotFoundError; the transaction is of no more use after
    MountpointTakenError.
    """
    if tx.execute(_RESERVE, {"wanted": volume_id, "for_instance": instance_id}).rowcount != 1:
        raise _unavailable(tx, volume_id, instance_id)
    values = {"volume_id": volume_id, "instance_id": instance_id, "mountpoint": mountpoint, "state": "attaching"}
    values |= {"is_root": is_root, "delete_on_termination": delete_on_termination}
    try:
        return rows.insert(tx, volume_attachments, values)
    except sa.exc.IntegrityError as exc:
        if "mountpoint" in str(exc.orig):
            raise MountpointTakenError(instance_id, mountpoint) from exc
        if "volume_id" in str(exc.orig):
            raise VolumeInUseError(volume_id, None) from exc
        raise


def _unavailable(tx: Tx, volume_id: int, instance_id: int | None = None) -> Exception:
    """Why a volume could not be taken by an instance, or deleted (None)."""
    found = tx.execute(_HOLDER, {"volume_id": volume_id}).first()
    if found is None:
        return RowNotFoundError("volume", volume_id)
    if found.instance_id is not None:
        return VolumeInUseError(volume_id, found.instance_id, found.mountpoint)
    if found.status == "available" and found.host is not None and instance_id is not None:
        return VolumeElsewhereError(volume_id, found.host, instance_id)
    return VolumeStatusError(volume_id, found.status)


def set_attached(tx: Tx, attachment_id: int) -> bool:
    """The guest has the volume; False, and nothing changed, unless this very attachment was `attaching`."""
    return _move(tx, attachment_id, ("attaching",), "attached", "in-use", attach_time=utcnow())


def set_detaching(tx: Tx, attachment_id: int) -> bool:
    """The volume is being taken from the guest; False, and nothing changed, unless it was `attached`."""
    return _move(tx, attachment_id, ("attached",), "detaching", "detaching")


def undo_detaching(tx: Tx, attachment_id: int) -> bool:
    """The guest kept the volume; False, and nothing changed, unless it was `detaching`."""
    return _move(tx, attachment_id, ("detaching",), "attached", "in-use")


def set_detached(tx: Tx, attachment_id: int) -> bool:
    """The guest no longer has the volume, or never got it; False, and nothing changed, when that was known."""
    ended = {"live": None, "deleted": True, "deleted_at": utcnow()}
    return _move(tx, attachment_id, ("attaching", "attached", "detaching"), "detached", "available", **ended)


def _move(tx: Tx, attachment_id: int, states: tuple[str, ...], state: str, volume_status: str, **also: Any) -> bool:
    """Compare-and-swap one attachment, and take its volume along unless an operator set that to error."""
    mine = sa.update(volume_attachments).where(_A.id == attachment_id, _A.state.in_(states))
    if tx.execute(mine.values(state=state, updated_at=utcnow(), **also)).rowcount != 1:
        return False
    volume = sa.select(_A.volume_id).where(_A.id == attachment_id).scalar_subquery()
    its = sa.update(volumes).where(_V.id == volume, _V.status.in_(["attaching", "in-use", "detaching"]))
    tx.execute(its.values(status=volume_status, attach_status=state, updated_at=utcnow()))
    return True


def attachment_of(tx: Tx, volume_id: int) -> Attachment | None:
    """The live attachment of a volume, or None."""
    return rows.first(tx, Attachment, _ATTACHMENT_OF, {"volume_id": volume_id})


def attachments_of(tx: Tx, instance_ids: Collection[int]) -> list[Attachment]:
    """The live attachments of these instances, by instance and device: one statement."""
    if not instance_ids:
        return []
    return rows.every(tx, Attachment, _ATTACHMENTS_OF, {"instance_ids": list(instance_ids)})
