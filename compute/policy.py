"""Who may do what: administrators everything, others what lies in their project."""

from __future__ import annotations

from compute.context import RequestContext
from compute.errors import NotAuthorizedError


def require_admin(context: RequestContext, doing: str) -> None:
    """Raise NotAuthorizedError unless the caller is an administrator; `doing` says what it takes one for."""
    if not context.is_admin:
        raise NotAuthorizedError(f"{doing} needs an administrator; {context.user_id or 'the caller'} is none")


def project_filter(context: RequestContext) -> str | None:
    """The project that the caller's lists are narrowed to; None for administrators: everything."""
    return None if context.is_admin else context.project_id


def may_see(context: RequestContext, project_id: str | None) -> bool:
    """True if the caller may know of something that belongs to a project."""
    return context.is_admin or project_id == context.project_id
