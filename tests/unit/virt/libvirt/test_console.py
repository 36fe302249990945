"""The end of a console log."""

from __future__ import annotations

import pytest

from virt.libvirt.console import tail


@pytest.fixture
def log(tmp_path):
    return tmp_path / "console.log"


def test_the_end_is_what_was_asked_for(log):
    log.write_text("x" * 1000 + "the end")
    assert tail(log, 7) == "the end"


def test_a_rotated_part_comes_before_the_newest(log):
    log.with_name("console.log.0").write_text("older ")
    log.write_text("newer")
    assert tail(log, 100) == "older newer"
    assert tail(log, 7) == "r newer"


def test_a_guest_that_said_nothing_said_nothing(log):
    assert tail(log, 100) == ""


def test_bytes_that_are_no_text_do_not_make_more_than_was_asked_for(log):
    log.write_bytes(b"\xff" * 100)
    assert 0 < len(tail(log, 10).encode()) <= 10
