"""Who removes packet filters is heard at once."""

from __future__ import annotations

import socket
import threading

import pytest

from compute.filter_watch import FilterWatch
from tests.functional.harness import eventually


class Kernel:
    """What Removals hears: a byte that says whether it was a removal."""

    def __init__(self):
        self._ear, self.mouth = socket.socketpair()
        self.is_closed = False

    def fileno(self):
        return self._ear.fileno()

    def heard(self):
        said = self._ear.recv(100)
        if said == b"broken":
            raise OSError("it is broken")
        return b"removed" in said

    def close(self):
        self.is_closed = True
        self._ear.close()


class Mender:
    """Counts, and fails if it is told to."""

    def __init__(self):
        self.times, self.error = 0, None

    def __call__(self):
        self.times += 1
        if self.error:
            raise self.error


@pytest.fixture
def kernel():
    made = Kernel()
    yield made
    made.close()
    made.mouth.close()


@pytest.fixture
def mender():
    return Mender()


@pytest.fixture
def watch(kernel, mender):
    made = FilterWatch(mender, pause_s=0, listen=lambda: kernel)
    made.start()
    yield made
    made.stop()
    assert kernel.is_closed


def test_what_is_removed_is_mended_and_what_is_changed_is_not(watch, kernel, mender):
    kernel.mouth.send(b"changed")
    kernel.mouth.send(b"removed")
    eventually(lambda: mender.times == 1)


def test_a_mending_that_fails_is_not_the_last(watch, kernel, mender, caplog):
    mender.error = RuntimeError("a defect")
    for times in (1, 2):
        kernel.mouth.send(b"removed")
        eventually(lambda times=times: mender.times == times)
    assert "a defect" in caplog.text


def test_many_removals_are_one_mending_in_a_while(kernel, mender):
    watch = FilterWatch(mender, pause_s=1000, listen=lambda: kernel)
    watch.start()
    kernel.mouth.send(b"removed")
    eventually(lambda: mender.times == 1)
    kernel.mouth.send(b"removed")
    watch.stop()
    assert (mender.times, kernel.is_closed) == (1, True)


def test_a_kernel_that_cannot_be_heard_is_told_of_and_not_asked_again(mender, caplog):
    asked = []

    def listen():
        asked.append(1)
        raise PermissionError("you must be root")

    watch = FilterWatch(mender, listen=listen)
    watch.start()
    eventually(lambda: "found by the next audit: you must be root" in caplog.text)
    watch.stop()
    assert len(asked) == 1


def test_an_ear_that_breaks_is_told_of(watch, kernel, caplog):
    kernel.mouth.send(b"broken")
    eventually(lambda: "found by the next audit from now on: it is broken" in caplog.text)


def test_a_watch_leaves_no_thread(watch):
    watch.stop()
    assert "removed packet filters" not in [thread.name for thread in threading.enumerate()]
