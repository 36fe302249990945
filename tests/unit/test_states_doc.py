"""docs/states.md is generated from compute/states.py."""

from __future__ import annotations

from pathlib import Path

from compute.states import MOVES, Task, Vm, as_markdown

RENEW = "run `.venv/bin/python -m tests.unit.doc_tables`"
STATES = Path(__file__).resolve().parents[2] / "docs/states.md"


def test_the_page_is_current() -> None:
    assert STATES.read_text() == as_markdown(), RENEW


def test_every_task_and_every_state_is_on_it() -> None:
    text = STATES.read_text()
    assert set(MOVES) == set(Task)
    assert not [task for task in Task if f"\n| {task} | {MOVES[task].verb} |" not in text]
    assert not [state for state in Vm if state not in text]
