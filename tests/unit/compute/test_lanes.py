"""Lanes: a few at a time, in order, each order once."""

from __future__ import annotations

import threading

from compute.lanes import Lane
from tests.functional.harness import eventually


def test_no_more_run_at_a_time_than_the_lane_is_wide() -> None:
    lane, gate, begun = Lane("t", 2), threading.Event(), list[int]()
    for key in range(5):
        lane.submit(key, lambda key=key: begun.append(key) or gate.wait(5))
    eventually(lambda: len(begun) == 2)
    assert sorted(begun) == [0, 1]
    gate.set()
    eventually(lambda: begun[2:] == [2, 3, 4] or sorted(begun) == list(range(5)))


def test_a_key_that_waits_or_runs_is_not_taken_twice() -> None:
    lane, gate, begun = Lane("t", 2), threading.Event(), list[int]()
    for _ in range(3):
        lane.submit("same", lambda: begun.append(1) or gate.wait(5))
    eventually(lambda: begun)
    gate.set()
    eventually(lambda: not lane._waiting)
    assert begun == [1]
    lane.submit("same", lambda: begun.append(2))
    eventually(lambda: begun == [1, 2])


def test_a_job_that_raises_frees_its_place() -> None:
    lane, done = Lane("t", 1), threading.Event()
    lane.submit(1, lambda: 1 // 0)
    lane.submit(2, done.set)
    assert done.wait(5)


def test_a_closed_lane_begins_nothing_more() -> None:
    lane, gate, begun = Lane("t", 1), threading.Event(), list[int]()
    lane.submit(1, lambda: begun.append(1) or gate.wait(5))
    lane.submit(2, lambda: begun.append(2))
    eventually(lambda: begun)
    lane.close()
    lane.submit(3, lambda: begun.append(3))
    gate.set()
    lane._pool.shutdown(wait=True)
    assert begun == [1]
