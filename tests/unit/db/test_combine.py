"""Several threads' units of work in one transaction."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from db.combine import AT_MOST, Combiner
from db.errors import DatabaseUnreachableError


class Ledger:
    """Transactions as lists of what was written in them."""

    def __init__(self) -> None:
        self.committed: list[list[str]] = []
        self.rolled_back: list[list[str]] = []

    @contextmanager
    def begin(self):
        written: list[str] = []
        try:
            yield written
        except BaseException:
            self.rolled_back.append(written)
            raise
        self.committed.append(written)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def combiner(ledger) -> Combiner:
    return Combiner(ledger.begin, patience_s=30)


def writing(what: str) -> Callable[[Any], str]:
    def work(tx: list[str]) -> str:
        tx.append(what)
        return what

    return work


def failing(tx: list[str]) -> None:
    tx.append("bad")
    raise ValueError("bad")


@contextmanager
def somebody_writes(combiner: Combiner):
    """Another thread is within its unit of work."""
    began, go_on = threading.Event(), threading.Event()

    def hold(tx: list[str]) -> None:
        began.set()
        go_on.wait(30)

    thread = threading.Thread(target=combiner.run, args=(hold,))
    thread.start()
    began.wait(30)
    yield
    go_on.set()
    thread.join(30)


def wait_for(number: int, combiner: Combiner) -> None:
    deadline = time.monotonic() + 30
    while len(combiner._waiting) < number:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def bring(combiner: Combiner, works: list[Callable[[Any], Any]]) -> list[Any]:
    """What came of works that wait together for the writer."""
    with ThreadPoolExecutor(len(works)) as pool:
        with somebody_writes(combiner):
            futures = []
            for number, work in enumerate(works, start=1):
                futures.append(pool.submit(combiner.run, work))
                wait_for(number, combiner)
        return [future.exception(30) or future.result() for future in futures]


def test_one_unit_is_one_transaction(combiner, ledger):
    assert combiner.run(writing("a")) == "a"
    assert ledger.committed == [["a"]]


def test_what_waits_together_is_committed_together_in_order(combiner, ledger):
    assert bring(combiner, [writing("a"), writing("b"), writing("c")]) == ["a", "b", "c"]
    assert ledger.committed == [[], ["a", "b", "c"]]


def test_a_batch_has_a_limit(combiner, ledger):
    bring(combiner, [writing(str(number)) for number in range(AT_MOST + 3)])
    assert [len(written) for written in ledger.committed] == [0, AT_MOST, 3]


def test_one_failure_is_its_own_callers_alone(combiner, ledger):
    came = bring(combiner, [writing("a"), failing, writing("c")])
    assert [str(one) for one in came] == ["a", "bad", "c"]
    assert [written for written in ledger.committed if written] == [["a"], ["c"]]


def test_a_failing_unit_alone_is_rolled_back(combiner, ledger):
    with pytest.raises(ValueError, match="bad"):
        combiner.run(failing)
    assert (ledger.committed, ledger.rolled_back) == ([], [["bad"]])


def test_the_next_one_goes_on_after_a_failure(combiner):
    with pytest.raises(ValueError, match="bad"):
        combiner.run(failing)
    assert combiner.run(writing("a")) == "a"


def test_an_interrupted_leader_tells_those_who_went_with_it_and_blocks_nobody(combiner):
    def interrupted(tx: list[str]) -> None:
        raise KeyboardInterrupt

    came = bring(combiner, [interrupted, writing("b")])
    assert [type(one) for one in came] == [KeyboardInterrupt, DatabaseUnreachableError]
    assert combiner.run(writing("c")) == "c"


def test_a_wait_without_end_ends(ledger):
    impatient = Combiner(ledger.begin, patience_s=0.01)
    with somebody_writes(impatient), pytest.raises(DatabaseUnreachableError, match="has been writing"):
        impatient.run(writing("a"))
    assert impatient.run(writing("b")) == "b"


def test_many_threads_lose_nothing(combiner, ledger):
    with ThreadPoolExecutor(16) as pool:
        came = list(pool.map(lambda number: combiner.run(writing(str(number))), range(400)))
    assert came == [str(number) for number in range(400)]
    assert sorted(one for written in ledger.committed for one in written) == sorted(came)


def test_a_transaction_that_cannot_begin_is_tried_once_for_all_who_wait(ledger):
    begins = []

    @contextmanager
    def begin():
        begins.append(1)
        if len(begins) > 1:
            raise OSError("locked")
        yield []

    came = bring(Combiner(begin, patience_s=30), [writing("a"), writing("b"), writing("c")])
    assert [str(one) for one in came] == ["locked"] * 3
    assert len(begins) == 2


def test_an_interruption_is_not_told_to_those_whose_work_was_committed_alone(combiner, ledger):
    def interrupted_when_alone(tx: list[str]) -> None:
        raise KeyboardInterrupt if ledger.rolled_back else ValueError

    came = bring(combiner, [writing("a"), writing("b"), interrupted_when_alone])
    assert [type(came[0]), came[1]] == [KeyboardInterrupt, "b"]
    assert [written for written in ledger.committed if written] == [["a"], ["b"]]
