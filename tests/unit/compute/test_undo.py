"""The undo stack."""

from compute.undo import Undo


def test_undo_runs_backwards_and_a_failing_step_stops_no_other() -> None:
    done: list[int] = []
    undo = Undo()
    undo.callback(done.append, 1)
    undo.callback(int, "no number")
    undo.callback(done.append, 2)
    failures = undo.run()
    assert done == [2, 1]
    assert [one.split(":")[0] for one in failures] == ["int"]


def test_what_succeeded_is_not_undone() -> None:
    done: list[int] = []
    undo = Undo()
    undo.callback(done.append, 1)
    undo.forget()
    assert (undo.run(), done) == ([], [])


def test_a_second_run_does_nothing() -> None:
    done: list[int] = []
    undo = Undo()
    undo.callback(done.append, 1)
    undo.run()
    undo.run()
    assert done == [1]
