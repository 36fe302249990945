"""The recovery table: every task by every fact."""

import pytest

from compute.recovery import _CONCLUDE, RULES
from compute.states import Task
from virt.power_state import Power

FACTS = [None, *Power]
UNREPEATABLE = {Task.SNAPSHOTTING: "failed", Task.MIGRATING: "decide"}
SPECIAL = {Task.SPAWNING, Task.REBOOTING, Task.REBOOTING_HARD, *UNREPEATABLE}


@pytest.mark.parametrize("fact", FACTS)
@pytest.mark.parametrize("task", sorted(set(Task) - SPECIAL))
def test_a_repeatable_task_is_done_again_whatever_the_fact(task: Task, fact: Power | None) -> None:
    assert RULES[task](fact).word == "again"


@pytest.mark.parametrize("fact", FACTS)
def test_a_build_is_done_exactly_if_its_guest_runs(fact: Power | None) -> None:
    assert RULES[Task.SPAWNING](fact).word == ("done" if fact is Power.RUNNING else "again")


@pytest.mark.parametrize("task", [Task.REBOOTING, Task.REBOOTING_HARD])
@pytest.mark.parametrize("fact", FACTS)
def test_a_reboot_is_repeated_only_for_a_guest_that_is_off(task: Task, fact: Power | None) -> None:
    is_on = fact is not None and fact.is_on
    assert RULES[task](fact).word == ("failed" if is_on else "again")


@pytest.mark.parametrize("task", UNREPEATABLE)
@pytest.mark.parametrize("fact", FACTS)
def test_what_cannot_be_repeated_has_somebody_to_conclude_it(task: Task, fact: Power | None) -> None:
    assert RULES[task](fact).word == UNREPEATABLE[task]
    assert task in _CONCLUDE
