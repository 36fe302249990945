"""Tables on a terminal; the only module of nova-manage's reads that imports rich."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_COLOURS = {"active": "green", ":-)": "green", "done": "green", "error": "bold red", "failed": "bold red", "XXX": "red"}
_NARROWEST = 8


def draw(columns: Sequence[str], cells: Sequence[Sequence[str]], whole: frozenset[str]) -> str:
    """A drawn table. Nothing is cut: columns in `whole` stay on one line, the others fold."""
    widths = [max([len(name), *(len(line[at]) for line in cells)]) for at, name in enumerate(columns)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, width in zip(columns, widths, strict=True):
        kept = name in whole
        table.add_column(name, no_wrap=kept, overflow="fold", min_width=width if kept else min(width, _NARROWEST))
    for line in cells:
        table.add_row(*(Text(text, style=_COLOURS.get(text, "")) for text in line))
    least = sum(w if name in whole else min(w, _NARROWEST) for name, w in zip(columns, widths, strict=True))
    room = max(shutil.get_terminal_size().columns, least + 3 * len(columns) + 1)
    sink = io.StringIO()
    Console(file=sink, width=room, force_terminal=True, legacy_windows=False).print(table)
    return sink.getvalue()
