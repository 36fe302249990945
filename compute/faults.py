"""What a failed operation tells its user, and what only the operator may read."""

from __future__ import annotations

import json
import traceback
from datetime import UTC, datetime

from compute.masking import masked

MAX_MESSAGE = 2000
MAX_TRACEBACK = 16000


def message_of(exc: BaseException) -> str:
    """One line for the user: our own errors in their words, others by class only; passwords masked."""
    ours = hasattr(exc, "expected")
    text = str(exc) if ours else f"internal error ({type(exc).__name__}); the operator's log has the details"
    return masked(" ".join(text.split()))[:MAX_MESSAGE]


def traceback_of(exc: BaseException) -> str | None:
    """The traceback of an unexpected error, passwords masked; None for an expected one."""
    if getattr(exc, "expected", False):
        return None
    return masked("".join(traceback.format_exception(exc)))[-MAX_TRACEBACK:]


def fault(exc: BaseException, request_id: str, message: str | None = None) -> str:
    """The JSON that the instance's `fault` column keeps; `message`: where there is more to say than `exc` does."""
    when = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    text = message_of(exc) if message is None else message
    return json.dumps({"message": text, "code": type(exc).__name__, "request_id": request_id, "at": when})
