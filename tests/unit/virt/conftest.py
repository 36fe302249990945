"""Golden documents: MICRONOVA_REGENERATE_GOLDEN=1 writes them anew, to be read in the diff."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compare a document with the one in tests/golden."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if os.environ.get("MICRONOVA_REGENERATE_GOLDEN"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert text == path.read_text(), f"{name} differs; MICRONOVA_REGENERATE_GOLDEN=1 writes it anew"

    return compare
