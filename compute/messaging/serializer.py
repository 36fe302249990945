"""Carries RequestContexts across the bus as plain dicts, and everything else as the JSON it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from oslo_messaging import NoOpSerializer

from compute.context import RequestContext
from compute.errors import InvalidInputError

_LONGEST: Mapping[str, int] = {"request_id": 64}  # as wide as the journal's columns; 255 where nothing is said
_NAMES = tuple(item.name for item in fields(RequestContext))


class ContextSerializer(NoOpSerializer):  # type: ignore[misc]
    """dict on the wire, RequestContext in the verbs."""

    def serialize_context(self, context: RequestContext | Mapping[str, Any]) -> dict[str, Any]:
        """The wire form of a context."""
        return context.to_dict() if isinstance(context, RequestContext) else dict(context)

    def deserialize_context(self, context: Any) -> RequestContext:
        """The context that a message carried; InvalidInputError when it is malformed."""
        if not isinstance(context, dict):
            raise InvalidInputError(f"context must be an object, not {type(context).__name__}")
        for name in _NAMES:
            _check(name, context.get(name))
        return RequestContext.from_dict(context)


def _check(name: str, value: Any) -> None:
    if not isinstance(value, str):
        return
    longest = _LONGEST.get(name, 255)
    if len(value) > longest:
        raise InvalidInputError(f"context: {name} has {len(value)} characters, at most {longest}")
    if re.search("[\0-\x1f\ud800-\udfff]", value):
        raise InvalidInputError(f"context: {name} has characters that are no text: {value!r:.80}")
