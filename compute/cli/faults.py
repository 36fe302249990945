"""What an error means to whoever ran nova-manage: one line, and an exit code that scripts can rely on."""

from __future__ import annotations

from dataclasses import dataclass

from compute.db_errors import meaning
from compute.errors import ComputeError
from db.errors import DatabaseError, DuplicateRowError

FAILED, USAGE, NOT_FOUND, CONFLICT, UNREACHABLE = 1, 2, 3, 4, 5
INTERRUPTED = 130
_BUS_PACKAGES = ("oslo_messaging", "kombu", "amqp")


@dataclass(frozen=True, slots=True)
class Fault:
    """An error's line and exit code; unexpected: a defect of ours, whose traceback --debug shows."""

    message: str
    exit_code: int
    unexpected: bool = False


def explain(exc: BaseException) -> Fault:
    """The fault that an error is."""
    if isinstance(exc, DatabaseError):
        exc = meaning(exc, duplicate="it exists already" if isinstance(exc, DuplicateRowError) else "")
    if isinstance(exc, ComputeError):
        return Fault(str(exc), exc.exit_code)
    if isinstance(exc, KeyboardInterrupt):
        return Fault("interrupted; an order that was accepted stays accepted", INTERRUPTED)
    if type(exc).__module__.partition(".")[0] in _BUS_PACKAGES:
        return Fault(f"the message bus does not answer: {_one_line(exc)}", UNREACHABLE)
    if isinstance(exc, OSError) and exc.filename is not None:
        return Fault(f"{exc.filename}: {exc.strerror}", FAILED)
    text = f"unexpected error, {type(exc).__name__}: {_one_line(exc)} (--debug shows more)"
    return Fault(text, FAILED, unexpected=True)


def _one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split())[:500] or type(exc).__name__
