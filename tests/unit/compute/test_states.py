"""The table of moves is whole."""

from compute.manager import ComputeManager
from compute.messaging.dispatch import verbs_of
from compute.states import FOLLOWS, MOVES, Task, Vm, as_markdown, follow
from virt.power_state import Power


def test_every_task_has_its_move_and_every_move_its_verb() -> None:
    assert set(MOVES) == set(Task)
    verbs = verbs_of(object.__new__(ComputeManager))
    assert {move.verb for move in MOVES.values()} <= set(verbs)


def test_nothing_starts_from_deleted_and_everything_has_a_deadline() -> None:
    assert not [task for task, move in MOVES.items() if Vm.DELETED in move.start]
    assert all(0 < move.deadline_s <= 7200 for move in MOVES.values())


def test_every_state_can_be_deleted_and_left() -> None:
    assert MOVES[Task.DELETING].start == frozenset(Vm) - {Vm.DELETED}
    reached = {move.end for move in MOVES.values()} | {Vm.BUILDING, Vm.ERROR}
    assert reached >= set(Vm)


def test_records_follow_only_known_facts() -> None:
    assert {power for _, power in FOLLOWS}.isdisjoint({Power.NOSTATE})
    assert follow(Vm.RESCUED, Power.SHUTOFF) is Vm.RESCUED
    assert follow(Vm.ACTIVE, Power.SHUTOFF) is Vm.STOPPED


def test_the_document_names_every_task_and_state() -> None:
    text = as_markdown()
    assert all(f"| {task} |" in text for task in Task)
    assert all(vm in text for vm in Vm)
