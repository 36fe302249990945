"""Calls that hang: their own callers get a deadline, nobody else notices."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from virt.errors import DriverTimeoutError
from virt.libvirt.calls import Calls


@pytest.fixture
def release():
    event = threading.Event()
    yield event
    event.set()


def hang(calls, lane, release, timeout_s=0.1):
    with pytest.raises(DriverTimeoutError):
        calls.run(lane, release.wait, timeout_s)


def wait_until(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_call_returns_what_it_returns():
    assert Calls().run("a", lambda: 42, 1) == 42


def test_a_call_raises_what_it_raises():
    with pytest.raises(ZeroDivisionError):
        Calls().run("a", lambda: 1 / 0, 1)


def test_a_hung_call_ends_at_its_deadline_for_its_caller(release):
    start = time.monotonic()
    hang(Calls(), "a", release, timeout_s=0.2)
    assert 0.2 <= time.monotonic() - start < 1


def test_hung_lanes_delay_no_other(release):
    calls = Calls(workers=8, max_stuck=20)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: hang(calls, f"hung-{n}", release), range(18)))
        start = time.monotonic()
        assert list(pool.map(lambda n: calls.run(f"well-{n}", lambda: n, 5), range(100))) == list(range(100))
    assert time.monotonic() - start < 1
    assert len(calls.stuck()) == 18


def test_a_stuck_lane_refuses_at_once_and_starts_no_thread(release):
    calls = Calls()
    hang(calls, "a", release)
    before, start = threading.active_count(), time.monotonic()
    for _ in range(50):
        hang(calls, "a", release, timeout_s=60)
    assert time.monotonic() - start < 0.5
    assert threading.active_count() <= before


def test_a_lane_heals_when_its_call_comes_back(release):
    calls = Calls()
    hang(calls, "a", release)
    release.set()
    wait_until(lambda: calls.stuck() == [])
    assert calls.run("a", lambda: "well", 1) == "well"


def test_what_hangs_is_bounded(release):
    calls = Calls(max_stuck=3)
    for n in range(3):
        hang(calls, f"lane-{n}", release)
    start = time.monotonic()
    with pytest.raises(DriverTimeoutError, match="3 calls"):
        calls.run("another", lambda: 1, 60)
    assert time.monotonic() - start < 0.5


def test_calls_of_a_lane_take_turns():
    calls, running, most = Calls(), [], []

    def work():
        running.append(1)
        most.append(len(running))
        time.sleep(0.01)
        running.pop()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: calls.run("a", work, 5), range(16)))
    assert max(most) == 1


def test_waiting_for_a_turn_counts_against_the_deadline(release):
    calls = Calls()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(calls.run, "a", release.wait, 5)
        time.sleep(0.05)
        hang(calls, "a", release, timeout_s=0.1)
        release.set()
        assert first.result() is True


def test_the_one_who_abandons_a_call_is_told(release):
    told = []
    with pytest.raises(DriverTimeoutError):
        Calls().run("a", release.wait, 0.05, abandoned=lambda: told.append(1))
    assert told == [1]


def test_idle_lanes_are_forgotten():
    calls = Calls()
    for n in range(100):
        calls.run(f"lane-{n}", lambda: None, 1)
    assert len(calls._lanes) <= 1
