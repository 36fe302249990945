"""Errors of the database layer, each saying what is wrong with what."""

from __future__ import annotations


class DatabaseError(Exception):
    """Base of what db raises on purpose."""

    expected = True


class RowNotFoundError(DatabaseError):
    """No live row: `kind` and `key` name what was looked for."""

    def __init__(self, kind: str, key: object) -> None:
        super().__init__(f"no {kind} {key}")
        self.kind, self.key = kind, key


class DuplicateRowError(DatabaseError):
    """A unique name or address is taken."""


class DatabaseUnreachableError(DatabaseError):
    """The server did not answer within the configured retries."""


class SchemaVersionError(DatabaseError):
    """The database is at another revision than this code."""
