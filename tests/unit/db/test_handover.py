"""The doorbell between processes that write to one SQLite file."""

from __future__ import annotations

import stat
import threading
import time
from pathlib import Path

import pytest

from db import handover
from db.handover import Handover

FILES = Path("/proc/self/fd")


@pytest.fixture
def pair(tmp_path, monkeypatch):
    monkeypatch.setattr(handover, "PAUSE_S", 30)
    path = str(tmp_path / "nova.sqlite")
    pair = Handover(path), Handover(path)
    yield pair
    for one in pair:
        one.close()


def test_a_ring_ends_a_wait(pair):
    threading.Timer(0.05, pair[0].ring).start()
    began = time.monotonic()
    pair[1].wait()
    assert time.monotonic() - began < 25


def test_a_ring_before_the_wait_is_not_lost(pair):
    pair[0].ring()
    began = time.monotonic()
    pair[1].wait()
    assert time.monotonic() - began < 25


def test_rings_do_not_pile_up(pair, monkeypatch):
    for _ in range(1000):
        pair[0].ring()
    pair[1].wait()
    monkeypatch.setattr(handover, "PAUSE_S", 0.02)
    began = time.monotonic()
    pair[1].wait()
    assert time.monotonic() - began >= 0.02


def test_the_pipe_is_ours_alone(pair, tmp_path):
    facts = (tmp_path / "nova.sqlite-turn").stat()
    assert (stat.S_ISFIFO(facts.st_mode), stat.S_IMODE(facts.st_mode)) == (True, 0o600)


@pytest.mark.parametrize("database", [None, ":memory:", "/nowhere/nova.sqlite"])
def test_without_a_pipe_a_wait_is_a_pause(database):
    alone = Handover(database)
    alone.ring()
    alone.wait()


def test_a_file_of_that_name_is_left_alone(tmp_path):
    (tmp_path / "nova.sqlite-turn").write_text("mine")
    alone = Handover(str(tmp_path / "nova.sqlite"))
    alone.ring()
    alone.wait()
    assert (tmp_path / "nova.sqlite-turn").read_text() == "mine"


def test_closing_twice_is_once(pair):
    before = len(list(FILES.iterdir()))
    pair[0].close()
    pair[0].close()
    assert len(list(FILES.iterdir())) == before - 1
