"""Records against facts, as data."""

from __future__ import annotations

import itertools

import pytest

from compute.states import FOLLOWS, Vm
from compute.sync import GONE, differences
from db.instances import PowerRecord
from virt.power_state import Power
from virt.spec import GuestFact


def a_record(vm: Vm = Vm.ACTIVE, power: Power = Power.RUNNING, task: str | None = None) -> PowerRecord:
    return PowerRecord(id=1, uuid="u1", vm_state=vm, task_state=task, power_state=int(power))


def a_fact(power: Power, *, ours: bool = True, uuid: str | None = "u1") -> GuestFact:
    return GuestFact(name="instance-00000001", uuid=uuid, power=power, ours=ours)


@pytest.mark.parametrize(("vm", "power"), list(itertools.product(Vm, Power)))
def test_a_known_fact_is_taken_over_and_the_state_follows_the_table(vm: Vm, power: Power) -> None:
    changes = differences([a_record(vm, Power.NOSTATE)], [a_fact(power)])
    wanted = FOLLOWS.get((vm, power), vm)
    expected = [] if (power, wanted) == (Power.NOSTATE, vm) else [(power, wanted)]
    assert [(change.power, change.vm_state) for change in changes] == expected


@pytest.mark.parametrize("vm", list(Vm))
def test_an_absent_guest_is_an_error_exactly_where_there_must_be_one(vm: Vm) -> None:
    (change,) = differences([a_record(vm)], [])
    assert change.power is Power.NOSTATE
    assert change.vm_state is (Vm.ERROR if vm in GONE else vm)
    assert change.lost is (vm in GONE)


@pytest.mark.parametrize("facts", [[], [a_fact(Power.SHUTOFF)]])
def test_a_record_with_a_task_is_never_different(facts: list[GuestFact]) -> None:
    assert differences([a_record(task="rebooting")], facts) == []


@pytest.mark.parametrize("fact", [a_fact(Power.SHUTOFF, ours=False), a_fact(Power.SHUTOFF, uuid=None)])
def test_a_guest_that_is_not_ours_says_nothing_about_our_record(fact: GuestFact) -> None:
    (change,) = differences([a_record()], [fact])
    assert change.lost


def test_what_agrees_is_no_difference() -> None:
    assert differences([a_record()], [a_fact(Power.RUNNING)]) == []
