"""Arguments in the journal, and what a failure leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from compute import orders
from compute.sealing import Sealer
from compute.states import MOVES, Task, Vm


@pytest.fixture
def sealer(tmp_path: Path) -> Sealer:
    return Sealer(str(tmp_path / "key"))


@pytest.mark.parametrize("name", sorted(orders.SECRET_ARGS))
def test_arguments_with_a_secret_are_sealed_as_a_whole(sealer: Sealer, name: str) -> None:
    packed = orders.pack(sealer, {name: "s3cret", "path": "/x"})
    assert "s3cret" not in packed
    assert "/x" not in packed
    assert orders.unpack(sealer, packed) == {name: "s3cret", "path": "/x"}


def test_other_arguments_stay_readable(sealer: Sealer) -> None:
    assert orders.pack(sealer, {"migration_id": 7}) == '{"migration_id": 7}'
    assert orders.unpack(sealer, orders.pack(sealer, {})) == {}


@pytest.mark.parametrize("task", list(Task))
def test_a_failure_leaves_the_state_of_the_table_or_the_one_before(task: Task) -> None:
    assert orders.failed_state(task, Vm.STOPPED) == (MOVES[task].failed or Vm.STOPPED)
