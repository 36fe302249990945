"""Everything a host needs for one operation on one instance, in as few statements as there are kinds of it."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from db import images, instance_metadata, networks, rows, security_groups, volumes
from db.actions import Action
from db.errors import RowNotFoundError
from db.instances import Instance
from db.models import fixed_ips, instance_actions, instance_types, instances, volume_attachments
from db.models import images as image_table
from db.models import instance_metadata as metadata_table
from db.prepared import Prepared
from db.session import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class Dossier:
    """An instance with all that belongs to it, and the order that is being worked on (None: just looking).

    members: of the groups that rules of `groups` follow. read_at: the monotonic clock before anything was read.
    """

    action: Action | None
    instance: Instance
    flavor: str
    image: images.Image | None
    kernel: images.Image | None
    ramdisk: images.Image | None
    addresses: tuple[networks.HeldAddress, ...]
    volumes: tuple[volumes.Attachment, ...]
    groups: tuple[security_groups.GroupRules, ...]
    metadata: dict[str, str]
    members: Mapping[int, Sequence[security_groups.Member]] = field(default_factory=dict)
    read_at: float = 0.0


def _count(table: sa.Table, *where: Any) -> Any:
    mine = sa.select(sa.func.count()).select_from(table).where(table.c.instance_id == instances.c.id, *where)
    return mine.scalar_subquery().label(f"n_{table.name}")


_SELECT = sa.select(
    *rows.columns(Instance, instances),
    instance_types.c.name.label("flavor"),
    *(column.label(f"image_{column.name}") for column in rows.columns(images.Image, image_table)),
    _count(fixed_ips),
    _count(volume_attachments, volume_attachments.c.live == 1),
    _count(metadata_table),
).select_from(
    instances.join(instance_types, instance_types.c.id == instances.c.instance_type_id).outerjoin(
        image_table, image_table.c.id == instances.c.image_id
    )
)
_BY_ID = Prepared(_SELECT.where(instances.c.id == sa.bindparam("instance_key")))
_BY_ACTION = Prepared(
    _SELECT.add_columns(*(c.label(f"action_{c.name}") for c in rows.columns(Action, instance_actions)))
    .join(instance_actions, instance_actions.c.instance_id == instances.c.id)
    .where(instance_actions.c.id == sa.bindparam("action_key"))
)
_BY_IDS = _SELECT.where(instances.c.id.in_(sa.bindparam("ids", expanding=True))).order_by(instances.c.id)
_PARTS = sa.select(*rows.columns(images.Image, image_table)).where(
    image_table.c.id.in_(sa.bindparam("ids", expanding=True))
)
_N_INSTANCE = len(rows.columns(Instance, instances))
_N_IMAGE = len(rows.columns(images.Image, image_table))
_N_COUNTS = 3


def for_action(tx: Tx, action_id: int, *, with_groups: bool) -> Dossier:
    """The dossier of an order: one statement, and one or two more for each kind of thing that there is."""
    read_at = time.monotonic()
    found = _BY_ACTION.first(tx, {"action_key": action_id})
    if found is None:
        raise RowNotFoundError("action", action_id)
    head = _N_INSTANCE + 1 + _N_IMAGE + _N_COUNTS
    return _dossier(tx, found, Action(*found[head:]), with_groups, read_at)


def for_instance(tx: Tx, instance_id: int, *, with_groups: bool) -> Dossier:
    """The dossier of an instance that no order is about; deleted ones too."""
    read_at = time.monotonic()
    found = _BY_ID.first(tx, {"instance_key": instance_id})
    if found is None:
        raise RowNotFoundError("instance", instance_id)
    return _dossier(tx, found, None, with_groups, read_at)


def for_filters(tx: Tx, instance_ids: Collection[int]) -> list[Dossier]:
    """Of each of these instances what its packet filters follow from: five statements at most, for any number.

    Volumes, metadata, kernels and ramdisks are left out.
    """
    if not instance_ids:
        return []
    read_at, ids = time.monotonic(), list(instance_ids)
    found = tx.execute(_BY_IDS, {"ids": ids}).all()
    groups = security_groups.groups_of(tx, ids)
    held: dict[int, list[networks.HeldAddress]] = {}
    for address in networks.addresses_of(tx, ids):
        held.setdefault(address.instance_id, []).append(address)
    members = _followed(tx, [group for each in groups.values() for group in each])
    return [
        replace(
            _bare(row), addresses=tuple(held.get(row.id, ())), groups=groups[row.id], members=members, read_at=read_at
        )
        for row in found
    ]


def _bare(found: Any) -> Dossier:
    image = found[_N_INSTANCE + 1 : _N_INSTANCE + 1 + _N_IMAGE]
    return Dossier(
        action=None, instance=Instance(*found[:_N_INSTANCE]), flavor=found.flavor,
        image=None if image[0] is None else images.decoded(image),
        kernel=None, ramdisk=None, addresses=(), volumes=(), groups=(), metadata={},
    )  # fmt: skip


def _followed(tx: Tx, groups: Collection[security_groups.GroupRules]) -> Mapping[int, Sequence[security_groups.Member]]:
    """The members of the groups that these groups' rules follow."""
    return security_groups.members(tx, {rule.group_id for one in groups for rule in one.rules if rule.group_id})


def _dossier(tx: Tx, found: Any, action: Action | None, with_groups: bool, read_at: float) -> Dossier:
    instance = Instance(*found[:_N_INSTANCE])
    image = found[_N_INSTANCE + 1 : _N_INSTANCE + 1 + _N_IMAGE]
    parts = _parts(tx, {instance.kernel_id, instance.ramdisk_id} - {None})
    ids = [instance.id]
    groups = security_groups.groups_of(tx, ids)[instance.id] if with_groups else ()
    return Dossier(
        action=action,
        instance=instance,
        flavor=found.flavor,
        image=None if image[0] is None else images.decoded(image),
        kernel=parts.get(instance.kernel_id),
        ramdisk=parts.get(instance.ramdisk_id),
        addresses=tuple(networks.addresses_of(tx, ids)) if found.n_fixed_ips else (),
        volumes=tuple(volumes.attachments_of(tx, ids)) if found.n_volume_attachments else (),
        groups=groups,
        metadata=instance_metadata.get(tx, instance.id) if found.n_instance_metadata else {},
        members=_followed(tx, groups),
        read_at=read_at,
    )


def _parts(tx: Tx, ids: Collection[int | None]) -> dict[int | None, images.Image]:
    """Kernel and ramdisk, which few instances have: read apart, because the server describes every column it sends."""
    if not ids:
        return {}
    return {part.id: part for part in map(images.decoded, tx.execute(_PARTS, {"ids": list(ids)}))}
