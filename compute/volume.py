"""Volumes that lie in files: their records. Attaching and detaching is compute.api's."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from compute import valid
from compute.context import RequestContext
from compute.db_errors import translated
from compute.errors import InvalidInputError, QuotaError, VolumeNotFoundError
from compute.policy import may_see, project_filter
from db import quotas, volumes
from db.session import Database, Tx
from db.volumes import Attachment, Volume

_LARGEST_GB = 65536


def create(
    db: Database,
    context: RequestContext,
    *,
    size_gb: int,
    path: str,
    name: str | None = None,
    description: str | None = None,
    host: str | None = None,
    limits: dict[str, int] | None = None,
) -> Volume:
    """Record a volume whose bytes are the file at `path`, on `host` or (None) on storage that every host sees.

    `limits`: configured quotas by resource; a project's own replace them. Raises InvalidInputError or QuotaError.
    """
    if not PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise InvalidInputError(f"volume path {path!r:.80} is not an absolute path without '..'")
    values: dict[str, Any] = {
        "user_id": context.user_id,
        "project_id": context.project_id,
        "size": valid.whole("volume size (GiB)", size_gb, least=1, most=_LARGEST_GB),
        "status": "available",
        "display_name": None if name is None else valid.name("volume name", name),
        "display_description": None if description is None else valid.text("description", description),
        "host": host,
        "provider_location": valid.text("path", f"file:{path}", longest=1024),
    }
    with translated():
        volume_id = db.run(_create, values, limits or {})
        return db.query(volumes.get, volume_id)


def get_all(db: Database, context: RequestContext) -> list[Volume]:
    """The project's volumes by id; every project's for an administrator."""
    with translated():
        return db.query(volumes.list_all, project_id=project_filter(context))


def get(db: Database, context: RequestContext, volume_id: int) -> Volume:
    """A volume by id; VolumeNotFoundError when there is none that the caller may see."""
    with translated():
        volume = db.query(volumes.get, volume_id)
    if not may_see(context, volume.project_id):
        raise VolumeNotFoundError(f"no volume {volume_id}")
    return volume


def attachment(db: Database, volume: Volume) -> Attachment | None:
    """Where a volume is attached, or being attached or detached."""
    with translated():
        return db.query(volumes.attachment_of, volume.id)


def delete(db: Database, context: RequestContext, volume_id: int) -> None:
    """Forget a volume that no instance has; its file stays, for whoever made it to remove."""
    volume = get(db, context, volume_id)
    with translated():
        db.run(volumes.delete, volume.id)


def _create(tx: Tx, values: dict[str, Any], limits: dict[str, int]) -> int:
    project_id = values["project_id"]
    allowed = {**limits, **quotas.get(tx, project_id)}
    usage = quotas.usage(tx, project_id)
    for resource, wanted in (("volumes", usage.volumes + 1), ("gigabytes", usage.gigabytes + values["size"])):
        if 0 <= allowed.get(resource, -1) < wanted:
            raise QuotaError(f"project {project_id} may have {allowed[resource]} {resource}; this would make {wanted}")
    return volumes.create(tx, **values)
