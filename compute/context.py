"""Who asks: the request context that travels with every RPC message and into every work order."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any

from compute.errors import InvalidInputError


def _request_id() -> str:
    return f"req-{uuid.uuid4()}"


def _now() -> str:
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """The caller's identity. timestamp: ISO 8601, UTC; remote_address: where an outer API saw the caller."""

    user_id: str = ""
    project_id: str = ""
    is_admin: bool = False
    request_id: str = field(default_factory=_request_id)
    read_deleted: bool = False
    remote_address: str | None = None
    timestamp: str = field(default_factory=_now)

    def to_dict(self) -> dict[str, Any]:
        """The form that crosses the bus."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RequestContext:
        """Read that form; unknown keys are ignored (a newer sender), wrong types are InvalidInputError."""
        known: dict[str, Any] = {}
        for item in fields(cls):
            if values.get(item.name) is None:
                continue
            want = bool if item.name in {"is_admin", "read_deleted"} else str
            if not isinstance(values[item.name], want):
                raise InvalidInputError(f"context: {item.name} must be {want.__name__}, not {values[item.name]!r:.80}")
            known[item.name] = values[item.name]
        return cls(**known)

    def elevated(self) -> RequestContext:
        """The same request with administrator's rights."""
        return replace(self, is_admin=True)


def get_admin_context(*, read_deleted: bool = False) -> RequestContext:
    """A context of the service itself or of an operator at the command line."""
    return RequestContext(user_id="admin", project_id="admin", is_admin=True, read_deleted=read_deleted)
