"""The one place that writes: views on standard output, and what is amiss on standard error."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from typing import IO, Any

from compute.cli.views import Record, Row, Table, Text, View

PROGRAM = "nova-manage"
_LONGEST = 2000


def show(view: View, output_format: str) -> None:
    """Write a view: `json` is one document and nothing else, `table` is for people."""
    if output_format == "json":
        _write(sys.stdout, json.dumps(document(view), indent=2, default=plain) + "\n")
    elif isinstance(view, Table):
        _table(view.rows if view.shown is None else view.shown, view.columns, view.whole)
    elif isinstance(view, Record):
        _table([{"field": key, "value": value} for key, value in view.facts.items()], ("field", "value"))
    elif isinstance(view, Text):
        keep = view.raw and not sys.stdout.isatty()
        _write(sys.stdout, "".join(f"{line if keep else printable(line)}\n" for line in view.lines))


def document(view: View) -> Any:
    """What --json shows of a view."""
    if isinstance(view, Table):
        return list(view.rows)
    if isinstance(view, Record):
        return view.facts
    return view.document if isinstance(view, Text) else None


def complain(message: object) -> None:
    """One line on standard error: `nova-manage: <what is wrong with what>`."""
    line = " ".join(printable(str(message)).split())
    _write(sys.stderr, f"{PROGRAM}: {line[:_LONGEST]}\n")


def write_text(text: str) -> None:
    """Help, on standard output."""
    _write(sys.stdout, text)


def trace(text: str) -> None:
    """A traceback on standard error, for --debug."""
    _write(sys.stderr, text)


def plain(value: object) -> Any:
    """A value in JSON's terms."""
    if isinstance(value, datetime):  # the database's, which are UTC without saying so
        return value.isoformat(timespec="milliseconds") + "Z"
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)


def printable(text: str) -> str:
    """The text without control characters: names and consoles are written by strangers, terminals obey them."""
    return "".join(char if char.isprintable() or char == "\t" else "\ufffd" for char in text)


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if value is None or value in ([], (), {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, float):
        return f"{value:.1f}"
    return printable(_nested(value) if isinstance(value, dict | list | tuple) else str(value))


def _nested(value: Any) -> str:
    if isinstance(value, list | tuple) and not any(isinstance(item, dict | list | tuple) for item in value):
        return ", ".join(map(str, value))
    return json.dumps(value, default=plain, ensure_ascii=False)


def _table(rows: Sequence[Row], columns: Sequence[str], whole: frozenset[str] = frozenset()) -> None:
    cells = [[cell(row.get(column)) for column in columns] for row in rows]
    if sys.stdout.isatty():
        from compute.cli import tables

        _write(sys.stdout, tables.draw(columns, cells, whole))
        return
    widths = [max([len(column), *(len(line[at]) for line in cells)]) for at, column in enumerate(columns)]
    for line in [list(columns), *cells]:
        _write(
            sys.stdout, "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() + "\n"
        )


def _write(stream: IO[str], text: str) -> None:
    """Write text, escaping what the stream's encoding does not have."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()
