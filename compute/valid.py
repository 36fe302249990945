"""Checks of single values that callers give: each returns the value, or raises InvalidInputError that says why not."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from compute.errors import InvalidInputError

LONGEST_NAME = 255
LARGEST_INT = 2**31 - 1
LONGEST_NUMBER = 20


def name(what: str, value: str, *, longest: int = LONGEST_NAME) -> str:
    """A name: 1 to `longest` printable characters, no blank at either end."""
    if not value or value != value.strip():
        raise InvalidInputError(f"{what} {value!r:.60}: a name is not empty and has no blank at either end")
    if not value.isprintable():
        raise InvalidInputError(f"{what} {value!r:.60}: a name has printable characters only")
    return text(what, value, longest=longest)


def text(what: str, value: str, *, longest: int = LONGEST_NAME) -> str:
    """Text of at most `longest` characters that every database takes (no NUL)."""
    if len(value) > longest:
        raise InvalidInputError(f"{what} {value[:20]!r}...: {len(value)} characters, at most {longest} are allowed")
    if "\0" in value:
        raise InvalidInputError(f"{what} {value!r:.60}: contains a NUL character")
    return value


def whole(what: str, value: int | str, *, least: int, most: int = LARGEST_INT) -> int:
    """A whole number between `least` and `most`, also as decimal digits."""
    digits = str(value)
    if not (digits.removeprefix("-").isdecimal() and digits.isascii()):
        raise InvalidInputError(f"{what} {digits!r:.60} is not a whole number")
    if len(digits) > LONGEST_NUMBER or not least <= (number := int(digits)) <= most:
        raise InvalidInputError(f"{what} {digits:.60} is not between {least} and {most}")
    return number


def one_of(what: str, value: str, allowed: Collection[str]) -> str:
    """One of a few words."""
    if value not in allowed:
        raise InvalidInputError(f"{what} {value!r:.60} is not one of {', '.join(sorted(allowed))}")
    return value


def properties(what: str, values: Mapping[str, str]) -> dict[str, str]:
    """Keys and values of at most 255 characters each."""
    return {name(f"{what} key", key): text(f"{what} {key}", value) for key, value in values.items()}
