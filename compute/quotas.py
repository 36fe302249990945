"""Quotas: what a project may have, and what it has. -1 means no limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compute import valid
from compute.context import RequestContext
from compute.db_errors import translated
from compute.errors import NotFoundError
from compute.policy import may_see, require_admin
from db import quotas
from db.session import Database

RESOURCES = (
    "instances",
    "cores",
    "volumes",
    "gigabytes",
    "metadata_items",
    "max_injected_files",
    "max_injected_file_content_bytes",
    "max_injected_file_path_bytes",
    "security_group_rules",
)


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of a project. used: None where nothing adds up; override: set for this project, not configured."""

    resource: str
    limit: int
    used: int | None
    override: bool


def defaults_from(conf: Any) -> dict[str, int]:
    """The configured limits (`quota_*`) by resource."""
    return {resource: int(conf[f"quota_{resource}"]) for resource in RESOURCES}


def show(db: Database, context: RequestContext, project_id: str, defaults: Mapping[str, int]) -> list[Limit]:
    """Every limit of a project with what it uses; a project that nobody mentioned has the configured limits."""
    if not may_see(context, project_id):
        raise NotFoundError(f"no project {project_id!r:.60}")
    with translated():
        own = db.query(quotas.get, project_id)
        usage = db.query(quotas.usage, project_id)
    return [
        Limit(resource, own.get(resource, default), getattr(usage, resource, None), resource in own)
        for resource, default in defaults.items()
    ]


def set_limit(db: Database, context: RequestContext, project_id: str, resource: str, hard_limit: int | None) -> None:
    """Set one limit of a project; None goes back to the configured one."""
    require_admin(context, "quota set")
    valid.name("project", project_id)
    valid.one_of("quota", resource, RESOURCES)
    with translated():
        if hard_limit is None:
            db.run(quotas.delete, project_id, resource)
            return
        db.run(quotas.set_limit, project_id, resource, valid.whole(f"quota {resource}", hard_limit, least=-1))
