"""Carries RequestContexts across the bus as plain dicts, and everything else as the JSON it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oslo_messaging import NoOpSerializer

from compute.context import RequestContext


class ContextSerializer(NoOpSerializer):  # type: ignore[misc]
    """dict on the wire, RequestContext in the verbs."""

    def serialize_context(self, context: RequestContext | Mapping[str, Any]) -> dict[str, Any]:
        """The wire form of a context."""
        return context.to_dict() if isinstance(context, RequestContext) else dict(context)

    def deserialize_context(self, context: Mapping[str, Any]) -> RequestContext:
        """The context that a message carried; InvalidInputError when it is malformed."""
        return RequestContext.from_dict(context)
