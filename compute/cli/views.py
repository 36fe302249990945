"""What a verb returns: a document for --json, and the same for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Base of the views. exit_code: what nova-manage ends with after showing it."""

    exit_code: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Table(View):
    """Rows under headings; --json has every key of the rows, the table has `columns`.

    shown: the rows as the table has them, where that differs. whole: columns that are never folded, however narrow
    the terminal.
    """

    rows: Sequence[Row]
    columns: Sequence[str]
    shown: Sequence[Row] | None = None
    whole: frozenset[str] = frozenset({"id", "uuid", "name"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(View):
    """One thing, a line for each of its facts."""

    facts: Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Text(View):
    """Lines for people; `document` is what --json shows instead."""

    lines: Sequence[str]
    document: Any = field(default_factory=dict)
    raw: bool = False
    """Written byte by byte when standard output is no terminal: a guest's console, a shell script."""
