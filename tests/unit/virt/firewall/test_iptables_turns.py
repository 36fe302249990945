"""Changes wait for their turn, are made together, and fail alone."""

from __future__ import annotations

import threading

import pytest

from virt.errors import FirewallError
from virt.firewall.iptables_turns import Turns


class Gate:
    """Makes changes once it is opened; a change named `bad` fails, `deadly` ends whoever makes it."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self, changes: list[str]) -> None:
        self.entered.set()
        assert self.opened.wait(10)
        if "deadly" in changes:
            raise SystemExit
        if "bad" in changes:
            raise FirewallError("bad")
        self.batches.append(sorted(changes))


def outcomes(gate: Gate, *changes: str) -> dict[str, BaseException | None]:
    """What becomes of changes that come while the first is made."""
    turns, found = Turns(gate), {}

    def take(change: str) -> None:
        found[change] = None
        try:
            turns.take(change)
        except BaseException as exc:  # noqa: BLE001 - what it is, is what is asked
            found[change] = exc

    threads = [threading.Thread(target=take, args=(change,)) for change in ("first", *changes)]
    threads[0].start()
    assert gate.entered.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(turns._waiting) < len(changes):
        threading.Event().wait(0.01)
    gate.opened.set()
    for thread in threads:
        thread.join(10)
    return found


def test_what_comes_meanwhile_is_made_at_once():
    gate = Gate()
    assert set(outcomes(gate, "a", "b", "c").values()) == {None}
    assert gate.batches == [["first"], ["a", "b", "c"]]


def test_one_that_fails_fails_alone():
    gate = Gate()
    found = outcomes(gate, "a", "bad", "c")
    assert isinstance(found.pop("bad"), FirewallError)
    assert set(found.values()) == {None}
    assert sorted(gate.batches) == [["a"], ["c"], ["first"]]


def test_nobody_takes_a_change_for_made_that_was_cut_off():
    found = outcomes(Gate(), "a", "deadly")
    assert {type(found["a"]), type(found["deadly"])} == {FirewallError, SystemExit}


def test_an_error_is_the_callers():
    gate = Gate()
    gate.opened.set()
    with pytest.raises(FirewallError, match="bad"):
        Turns(gate).take("bad")
