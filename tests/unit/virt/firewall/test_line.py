"""Who may go side by side does; who has to wait is not overtaken."""

from __future__ import annotations

import threading

import pytest

from tests.functional.harness import eventually
from virt.firewall.line import Line


class Walkers:
    """Threads in a line; each that is through is in `inside` until it is let go."""

    def __init__(self):
        self.line, self.inside, self._leave, self._threads = Line(), [], {}, []

    def come(self, who, name=None):
        """Have somebody queue up, behind all who came before."""
        self._leave[who] = threading.Event()
        place = self.line.alone() if name is None else self.line.beside(name)
        self._threads.append(threading.Thread(target=self._walk, args=(who, place)))
        before = len(self.line._places)
        self._threads[-1].start()
        eventually(lambda: len(self.line._places) > before)

    def _walk(self, who, place):
        with place:
            self.inside.append(who)
            assert self._leave[who].wait(20)
            self.inside.remove(who)

    def let_go(self, *who):
        """Have these leave."""
        for one in who:
            self._leave[one].set()

    def end(self):
        """Have everybody leave."""
        self.let_go(*self._leave)
        for thread in self._threads:
            thread.join(20)


@pytest.fixture
def walkers():
    made = Walkers()
    yield made
    made.end()
    assert made.line._places == []


def test_those_of_different_names_go_side_by_side(walkers):
    walkers.come("first", "a")
    walkers.come("second", "b")
    eventually(lambda: walkers.inside == ["first", "second"])


def test_those_of_one_name_go_one_by_one_in_order(walkers):
    for who in ("first", "second", "third"):
        walkers.come(who, "a")
    walkers.let_go("first")
    eventually(lambda: walkers.inside == ["second"])
    walkers.let_go("second")
    eventually(lambda: walkers.inside == ["third"])


def test_who_comes_alone_waits_for_all_and_is_waited_for_by_all(walkers):
    for who, name in (("first", "a"), ("alone", None), ("last", "b")):
        walkers.come(who, name)
    eventually(lambda: walkers.inside == ["first"])
    walkers.let_go("first")
    eventually(lambda: walkers.inside == ["alone"])
    walkers.let_go("alone")
    eventually(lambda: walkers.inside == ["last"])


def test_who_fails_holds_up_nobody(walkers):
    with pytest.raises(RuntimeError), walkers.line.alone():
        raise RuntimeError
    walkers.come("next", "a")
    eventually(lambda: walkers.inside == ["next"])
