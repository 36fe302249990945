"""Timers go on whatever a round does."""

from __future__ import annotations

import logging

import pytest

from compute.timers import Timer
from db.errors import DatabaseUnreachableError
from tests.functional.harness import eventually


@pytest.mark.parametrize("error", [DatabaseUnreachableError("away"), RuntimeError("defect")])
def test_a_failing_round_is_told_once_and_the_next_runs(caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    caplog.set_level(logging.INFO)
    rounds: list[int] = []

    def job() -> None:
        rounds.append(1)
        if len(rounds) <= 3:
            raise error

    timer = Timer("t", 0.01, job, now=True)
    timer.start()
    eventually(lambda: len(rounds) > 5)
    timer.stop()
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert "works again after 3 failures" in caplog.text


def test_a_stopped_timer_runs_no_more() -> None:
    rounds: list[int] = []
    timer = Timer("t", 0.01, lambda: rounds.append(1))
    timer.start()
    eventually(lambda: rounds)
    timer.stop()
    assert not timer._thread.is_alive()
