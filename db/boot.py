"""What a create must know, in one statement: flavor, image (if any), limits, usage, default group and network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from db import images, instance_types, networks, rows, security_groups
from db.errors import RowNotFoundError
from db.models import images as image_table
from db.models import instance_types as type_table
from db.models import instances, quotas
from db.models import networks as network_table
from db.models import security_groups as group_table
from db.prepared import Prepared
from db.session import Tx


@dataclass(frozen=True, slots=True)
class BootFacts:
    """Facts for a create. limits: what the project may have of `instances` and `cores`, -1 being no limit; used: what
    it has now of those that have one."""

    flavor: instance_types.InstanceType
    image: images.Image | None
    limits: Mapping[str, int]
    used: Mapping[str, int]
    default_group_id: int
    default_network_id: int | None


_TYPES, _IMAGES = type_table.c, image_table.c
_PROJECT: sa.BindParameter[str] = sa.bindparam("project_id")


def _limit(resource: str) -> Any:
    """The project's own limit, or that of all."""
    own = sa.select(quotas.c.hard_limit).where(quotas.c.project_id == _PROJECT, quotas.c.resource == resource)
    return sa.func.coalesce(own.scalar_subquery(), sa.bindparam(f"most_{resource}", type_=sa.Integer))


def _used(resource: str, amount: Any) -> Any:
    """What the project has of it, added up only where there is a limit."""
    total = sa.select(amount).where(instances.c.project_id == _PROJECT, instances.c.deleted == sa.false())
    return sa.case((_limit(resource) >= 0, total.scalar_subquery()), else_=0)


_DEFAULT_GROUP = (
    sa.select(group_table.c.id)
    .where(group_table.c.project_id == _PROJECT, group_table.c.name == "default", group_table.c.deleted == sa.false())
    .scalar_subquery()
)
_DEFAULT_NETWORK = (
    sa.select(network_table.c.id)
    .where(
        network_table.c.deleted == sa.false(),
        sa.or_(network_table.c.project_id == _PROJECT, network_table.c.project_id.is_(None)),
    )
    .order_by(sa.case((network_table.c.project_id == _PROJECT, 0), else_=1), network_table.c.id)
    .limit(1)
    .scalar_subquery()
)
_TYPE_COLUMNS = rows.columns(instance_types.InstanceType, type_table)
_IMAGE_COLUMNS = rows.columns(images.Image, image_table)
_OF_IMAGE = sa.and_(
    _IMAGES.deleted == sa.false(),
    sa.or_(_IMAGES.name == sa.bindparam("image_key"), _IMAGES.id == sa.bindparam("image_id")),
)
_FACTS = Prepared(
    sa.select(
        *_TYPE_COLUMNS,
        *_IMAGE_COLUMNS,
        _limit("instances").label("limit_instances"),
        _limit("cores").label("limit_cores"),
        _used("instances", sa.func.count()).label("used_instances"),
        _used("cores", sa.func.coalesce(sa.func.sum(instances.c.vcpus), 0)).label("used_cores"),
        _DEFAULT_GROUP.label("group_id"),
        _DEFAULT_NETWORK.label("network_id"),
    )
    .select_from(type_table.outerjoin(image_table, _OF_IMAGE))
    .where(
        _TYPES.deleted == sa.false(),
        sa.or_(_TYPES.name == sa.bindparam("type_key"), _TYPES.flavorid == sa.bindparam("type_key")),
    )
    .order_by(
        sa.case((_TYPES.name == sa.bindparam("type_key"), 0), else_=1),
        sa.case((_IMAGES.name == sa.bindparam("image_key"), 0), else_=1),
    )
    .limit(1)
)


def facts(
    tx: Tx, *, user_id: str, project_id: str, instance_type: str, image: str | None, limits: Mapping[str, int]
) -> BootFacts:
    """Facts for one create, counted while no other create of this project can run. image None: it needs none.

    limits: those of projects that have none of their own. One statement on SQLite, whose transactions exclude each
    other anyway; two on servers, where the project's default group is locked first. Raises RowNotFoundError for an
    unknown type or image.
    """
    group_id: int | None = None
    if tx.dialect.name != "sqlite":
        group_id = security_groups.ensure_default(tx, user_id, project_id, hold=True).id
    image_id = -1 if image is None else rows.row_id(image)
    keys = {"type_key": instance_type, "image_key": image, "image_id": image_id, "project_id": project_id}
    keys |= {f"most_{resource}": limit for resource, limit in limits.items()}
    found = _FACTS.first(tx, keys)
    if found is None:
        raise RowNotFoundError("instance type", instance_type)
    known = _facts(tx, found, user_id, project_id, group_id)
    if known.image is None and image is not None:
        raise RowNotFoundError("image", image)
    return known


def _facts(tx: Tx, found: Any, user_id: str, project_id: str, group_id: int | None) -> BootFacts:
    types_end = len(_TYPE_COLUMNS)
    images_end = types_end + len(_IMAGE_COLUMNS)
    return BootFacts(
        flavor=instance_types.InstanceType(*found[:types_end]),
        image=None if found[types_end] is None else images.decoded(found[types_end:images_end]),
        limits={"instances": int(found.limit_instances), "cores": int(found.limit_cores)},
        used={"instances": int(found.used_instances), "cores": int(found.used_cores)},
        default_group_id=group_id or found.group_id or security_groups.ensure_default(tx, user_id, project_id).id,
        default_network_id=found.network_id,
    )


def resolve_network(tx: Tx, key: str, project_id: str | None) -> int:
    """The id of the network that `key` names, if instances of the project may use it; with None, of any."""
    found = networks.find(tx, key)
    if project_id is not None and found.project_id not in {None, project_id}:
        raise RowNotFoundError("network", key)
    return found.id
