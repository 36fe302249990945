"""What travels on the embedded bus, as JSON: requests and replies.

Plain json, without converters: what it refuses would arrive as something else on any broker.
"""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

JsonDict = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A cast, a fanout, a notification or, with `reply_to`, a call."""

    ctxt: JsonDict
    message: JsonDict
    msg_id: str
    reply_to: str | None = None
    monitor_timeout_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The result of a call, its failure as oslo.messaging serialises one, or (not `ending`) a sign of life."""

    msg_id: str
    result: Any = None
    failure: str | None = None
    ending: bool = True


class MalformedMessageError(Exception):
    """A body on the bus is not what this release writes."""


def encode(message: Request | Reply) -> str:
    """Render as ASCII JSON; raise TypeError or ValueError for what JSON has no form for."""
    # Not dataclasses.asdict: it would copy every value down to the leaves first.
    return json.dumps({name: getattr(message, name) for name in message.__slots__}, separators=(",", ":"))


def decode_request(body: str) -> Request:
    """Read a request back; raise MalformedMessageError."""
    try:
        return Request(**json.loads(body))
    except (ValueError, TypeError, RecursionError) as exc:
        raise MalformedMessageError(f"not a request: {body[:80]!r}") from exc


def decode_reply(body: str) -> Reply:
    """Read a reply back; raise MalformedMessageError."""
    try:
        return Reply(**json.loads(body))
    except (ValueError, TypeError, RecursionError) as exc:
        raise MalformedMessageError(f"not a reply: {body[:80]!r}") from exc


def queue_name(exchange: str, topic: str, server: str | None = None) -> str:
    """Name the queue of a topic, or of one server of it; distinct for distinct parts, whatever they contain."""
    parts = [part for part in (exchange, topic, server) if part is not None]
    return "/".join(quote(part, safe="") for part in parts)
