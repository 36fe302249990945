"""Files that a command line names: read whole, but never more than they may be."""

from __future__ import annotations

import sys
from pathlib import Path

from compute.errors import InvalidInputError

LARGEST_USER_DATA = 65535
LARGEST_INJECTED = 1024 * 1024


def read(what: str, path: str, *, most: int) -> bytes:
    """The bytes of a file, `-` being standard input; InvalidInputError when it cannot be read or is larger."""
    try:
        if path == "-":
            content = sys.stdin.buffer.read(most + 1)
        else:
            with Path(path).open("rb") as file:
                content = file.read(most + 1)
    except OSError as exc:
        raise InvalidInputError(f"{what} {path!r:.80}: {exc.strerror}") from exc
    if len(content) > most:
        raise InvalidInputError(f"{what} {path!r:.80} is larger than {most} bytes")
    return content


def read_text(what: str, path: str, *, most: int) -> str:
    """The same as text; InvalidInputError when it is not UTF-8."""
    try:
        return read(what, path, most=most).decode()
    except UnicodeDecodeError as exc:
        raise InvalidInputError(f"{what} {path!r:.80} is not UTF-8") from exc


def pair(what: str, text: str, form: str = "KEY=VALUE") -> tuple[str, str]:
    """`K=V` taken apart; `form` is what it is called in an error."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise InvalidInputError(f"{what} {text!r:.80} is not of the form {form}")
    return key, value
