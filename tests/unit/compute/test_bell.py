"""The bell that native threads ring for the thread that waits, whatever kind of thread that is."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from compute.concurrency import Bell

GREEN = """
import warnings; warnings.simplefilter("ignore")
from compute import concurrency
concurrency.choose("eventlet")
import time
import eventlet
from eventlet.patcher import original
from compute.concurrency import Bell
bell, ticks = Bell(), []
def tick():
    while True:
        ticks.append(time.monotonic()); time.sleep(0.01)
eventlet.spawn(tick)
def ring():
    original("time").sleep(0.3); bell.ring()
original("threading").Thread(target=ring, daemon=True).start()
begun = time.monotonic()
print(bell.wait(10), time.monotonic() - begun < 5, len(ticks) > 10, bell.wait(0.05))
"""


@pytest.fixture
def bell() -> Iterator[Bell]:
    made = Bell()
    yield made
    made.close()


def test_a_ring_wakes_the_waiter(bell: Bell) -> None:
    threading.Timer(0.05, bell.ring).start()
    begun = time.monotonic()
    assert bell.wait(10)
    assert time.monotonic() - begun < 5


def test_rings_before_a_wait_are_few(bell: Bell) -> None:
    for _ in range(100_000):
        bell.ring()
    while bell.wait(0.05):
        pass
    assert not bell.wait(0.01)


def test_nobody_rings_a_bell_that_is_gone() -> None:
    bell = Bell()
    bell.close()
    bell.ring()


def test_a_native_thread_wakes_a_green_waiter_and_the_hub_runs_on() -> None:
    done = subprocess.run([sys.executable, "-c", GREEN], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["True", "True", "True", "False"]
