"""Images: what instances boot from, and where it lies. Properties are a dict here and JSON in the table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from db import rows
from db.errors import RowInUseError, RowNotFoundError
from db.models import images
from db.session import Tx, utcnow


@dataclass(frozen=True, slots=True)
class Image:
    """One image; `status` is queued, saving, active or error, as in 2011.2."""

    id: int
    name: str
    project_id: str | None
    is_public: bool
    status: str
    disk_format: str
    location: str
    sha256: str | None
    size_bytes: int | None
    min_disk_gb: int
    kernel_id: int | None
    ramdisk_id: int | None
    properties: dict[str, Any]
    created_at: datetime
    deleted: bool


_I = images.c
_PROPERTIES = [field.name for field in fields(Image)].index("properties")
_ALL = sa.select(*rows.columns(Image, images))
_LIVE = rows.select_live(Image, images).order_by(_I.id)
_BY_ID = _ALL.where(_I.id == sa.bindparam("image_id"))
_BY_KEY = (
    rows.select_live(Image, images)
    .where(sa.or_(_I.name == sa.bindparam("key"), _I.id == sa.bindparam("image_id")))
    .order_by(sa.case((_I.name == sa.bindparam("key"), 0), else_=1))
    .limit(1)
)


def create(tx: Tx, *, name: str, status: str, disk_format: str, location: str, **facts: Any) -> int:
    """Register an image and return its id; the name must be free. `facts`: the other columns, properties as a dict."""
    values = {"name": name, "status": status, "disk_format": disk_format, "location": location, **facts}
    return rows.insert(tx, images, {"properties": "{}", **_encoded(values)})


def get(tx: Tx, image_id: int, *, read_deleted: bool = False) -> Image:
    """The image with this id; a deleted one only with `read_deleted`: instances outlive their image."""
    found = _first(tx, _BY_ID, {"image_id": image_id})
    if found is None or (found.deleted and not read_deleted):
        raise RowNotFoundError("image", image_id)
    return found


def find(tx: Tx, key: str | int) -> Image:
    """The live image that `key` means: as a name first, then as an id."""
    found = _first(tx, _BY_KEY, {"key": str(key), "image_id": rows.row_id(key)})
    if found is None:
        raise RowNotFoundError("image", key)
    return found


def list_all(tx: Tx, *, project_id: str | None = None, is_public: bool | None = None) -> list[Image]:
    """Live images by id: all of them, or those that a project sees (its own and the public), or by publicity."""
    statement = _LIVE
    if project_id is not None:
        statement = statement.where(sa.or_(_I.project_id == project_id, _I.is_public == sa.true()))
    if is_public is not None:
        statement = statement.where(_I.is_public == is_public)
    return [decoded(found) for found in tx.execute(statement)]


def update(tx: Tx, image_id: int, **facts: Any) -> None:
    """Write columns of a live image (status, location, size_bytes, sha256, properties as a dict...)."""
    statement = sa.update(images).where(_I.id == image_id, _I.deleted == sa.false())
    done = tx.execute(statement.values(updated_at=utcnow(), **_encoded(facts)))
    if done.rowcount != 1:
        raise RowNotFoundError("image", image_id)


def delete(tx: Tx, image_id: int) -> None:
    """Withdraw an image; RowInUseError while it is the kernel or ramdisk of a live one."""
    user = sa.select(_I.name).where(
        _I.deleted == sa.false(),
        _I.id != image_id,
        sa.or_(_I.kernel_id == image_id, _I.ramdisk_id == image_id),
    )
    name = tx.execute(user.limit(1)).scalar()
    if name is not None:
        raise RowInUseError("image", image_id, f"image {name}")
    if not rows.soft_delete(tx, images, image_id):
        raise RowNotFoundError("image", image_id)


def _first(tx: Tx, statement: sa.Select[Any], params: Mapping[str, Any]) -> Image | None:
    found = tx.execute(statement, params).first()
    return None if found is None else decoded(found)


def decoded(values: Sequence[Any]) -> Image:
    """An image from its columns' values in the order of its fields, properties as their JSON text."""
    return replace(Image(*values), properties=json.loads(values[_PROPERTIES]))


def _encoded(values: Mapping[str, Any]) -> dict[str, Any]:
    if "properties" not in values:
        return dict(values)
    return {**values, "properties": json.dumps(values["properties"], sort_keys=True)}
