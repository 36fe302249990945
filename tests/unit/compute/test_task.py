"""Claims: an order is done once, and its end is written with the instance's, whatever becomes of the body."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compute.context import RequestContext
from compute.errors import AbortedError, ClaimLostError, InstanceBusyError, InstanceNotFoundError
from compute.sealing import Sealer
from compute.specs import SpecBuilder
from compute.states import Task
from compute.task import Tasks
from compute.work import DaemonStopped, Work
from db import actions, instances
from db.actions import Action
from db.session import Database
from tests.fakes.databases import a_database, an_instance
from virt.fake.driver import FakeDriver
from virt.network.mode import NetworkMode

ANNA = RequestContext(user_id="anna", project_id="lab", request_id="req-1")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """A database with the active instance 1 on host1."""
    database = a_database(tmp_path)
    an_instance(database)
    yield database
    database.dispose()


@pytest.fixture
def passed_on() -> list[Action]:
    return []


@pytest.fixture
def tasks(db: Database, tmp_path: Path, passed_on: list[Action]) -> Tasks:
    """The tasks of host1."""
    sealer, driver = Sealer(str(tmp_path / "key")), FakeDriver()
    driver.init_host("host1")
    specs = SpecBuilder(name_template="instance-%08x", sealer=sealer, networks=NetworkMode())
    return Tasks(
        db=db, driver=driver, specs=specs, sealer=sealer, host="host1", owner="this start", with_groups=False,
        passed_on=passed_on.append,
    )  # fmt: skip


def pausing(tasks: Tasks, action_id: int | None = None, **args: Any) -> Any:
    return tasks.claim(ANNA, 1, Task.PAUSING, action_id, args)


def accepted(db: Database, **changes: Any) -> int:
    """The id of an order to pause instance 1 that waits for host1."""
    db.run(instances.begin_task, 1, Task.PAUSING, ["active"], also_locked=True)
    row = {"instance_id": 1, "action": "pausing", "step": "pause_instance", "request_id": "r", "args": "{}"}
    who = {"user_id": "anna", "project_id": "lab", "host": "host1", "state": "requested"}
    return db.run(actions.create, {**row, **who, **changes})


def order(db: Database) -> Action:
    """The last one of instance 1."""
    return db.query(actions.list_for, 1)[-1]


def states(db: Database) -> tuple[str, str | None, str]:
    """vm_state, task_state, and the state of the last order."""
    row = db.query(instances.get, 1)
    return row.vm_state, row.task_state, order(db).state


def interrupted(tasks: Tasks, accident: BaseException, undone: list[int]) -> None:
    """A pause that an accident ends."""
    with pausing(tasks) as work:
        work.undo.callback(undone.append, 1)
        raise accident


def test_while_the_body_runs_the_instance_is_taken(tasks: Tasks, db: Database) -> None:
    with pausing(tasks) as work:
        assert states(db) == ("active", "pausing", "running")
        assert tasks.running() == tasks.running(1) == [work]
        assert tasks.running(2) == []
        assert tasks.is_running(order(db))
    assert not tasks.is_running(order(db))


def test_a_body_that_ends_is_an_order_that_is_done(tasks: Tasks, db: Database) -> None:
    undone: list[int] = []
    with pausing(tasks) as work:
        work.undo.callback(undone.append, 1)
    assert states(db) == ("paused", None, "done")
    assert (undone, work.left.is_set()) == ([], True)


def test_a_body_that_fails_is_undone_and_says_why(tasks: Tasks, db: Database) -> None:
    undone: list[int] = []
    with pytest.raises(OSError, match="no more memory"):
        interrupted(tasks, OSError("no more memory"), undone)
    assert states(db) == ("active", None, "failed")
    assert undone == [1]
    assert order(db).traceback


def failing(tasks: Tasks, write: Any) -> None:
    """A pause that fails with something to write."""
    with pausing(tasks) as work:
        work.when_failed.append(write)
        raise ValueError("no such thing")


def test_a_failure_whose_writes_the_database_refuses_is_recorded_without_them(tasks: Tasks, db: Database) -> None:
    with pytest.raises(ValueError, match="no such thing"):
        failing(tasks, lambda tx: actions.get(tx, 999))
    assert states(db) == ("active", None, "failed")
    assert "could not be written whole" in str(order(db).error)


def test_an_accident_that_is_no_exception_leaves_all_as_a_crash_would(tasks: Tasks, db: Database) -> None:
    undone: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted(tasks, KeyboardInterrupt(), undone)
    assert (states(db), undone) == (("active", "pausing", "running"), [])
    assert not tasks.is_running(order(db))


def test_an_order_is_claimed_once(tasks: Tasks, db: Database) -> None:
    order_id = accepted(db)
    with pausing(tasks, order_id):
        pass
    with pytest.raises(ClaimLostError), pausing(tasks, order_id):
        pytest.fail("done twice")
    assert order(db).attempt == 1


@pytest.mark.parametrize("wrong", [{"host": "host2"}, {"step": "stop_instance"}, {"state": "aborted"}])
def test_an_order_that_is_not_for_here_and_now_is_not_claimed(tasks: Tasks, db: Database, wrong: Any) -> None:
    with pytest.raises(ClaimLostError), pausing(tasks, accepted(db, **wrong)):
        pytest.fail("not ours")


def test_the_arguments_of_an_order_are_those_of_its_row(tasks: Tasks, db: Database) -> None:
    with pausing(tasks, accepted(db, args='{"hard": true}'), hard=False) as work:
        assert (work.args, work.plain) == ({"hard": True}, False)


def test_a_plain_cast_that_is_refused_leaves_its_reason(tasks: Tasks, db: Database) -> None:
    db.run(instances.begin_task, 1, Task.STOPPING, ["active"], also_locked=True)
    with pytest.raises(InstanceBusyError), pausing(tasks):
        pytest.fail("taken twice")
    assert (order(db).state, order(db).error) == ("failed", "instance 1 is busy: stopping")
    with pytest.raises(InstanceNotFoundError), tasks.claim(ANNA, 9, Task.PAUSING, None):
        pytest.fail("no such instance")


def test_a_daemon_that_stops_takes_nothing_and_lets_go_of_what_runs(tasks: Tasks, db: Database) -> None:
    def stopping() -> None:
        with pausing(tasks) as work:
            tasks.stop()
            work.check()

    with pytest.raises(DaemonStopped):
        stopping()
    assert states(db) == ("active", "pausing", "running")
    with pytest.raises(ClaimLostError, match="this daemon stops"), pausing(tasks):
        pytest.fail("taken")


def test_an_operation_past_its_deadline_is_asked_first_and_then_failed_without(tasks: Tasks, db: Database) -> None:
    def hanging() -> None:
        with pausing(tasks) as work:
            tasks.expire(work)
            assert (work.cancelled, states(db)[2]) == (True, "running")
            tasks.expire(work)
            assert states(db) == ("active", None, "failed")
            work.check()

    with pytest.raises(AbortedError):
        hanging()


def test_a_leg_that_ends_hands_the_order_on(tasks: Tasks, db: Database, passed_on: list[Action]) -> None:
    with pausing(tasks) as work:
        work.pass_on("resume_instance", "host2", {"leg": 2})
    assert states(db) == ("active", "pausing", "requested")
    assert [(one.step, one.host, one.owner, one.args) for one in passed_on] == [
        ("resume_instance", "host2", None, '{"leg": 2}')
    ]


def test_a_delete_that_came_meanwhile_has_the_last_word(tasks: Tasks, db: Database) -> None:
    def outranked(work: Work) -> None:
        db.run(instances.override_task, 1, Task.DELETING)
        db.run(actions.abort_open, 1, "a delete outranked it")
        work.undo.callback(undone.append, 1)

    undone: list[int] = []
    with pytest.raises(AbortedError, match="a delete outranked it"), pausing(tasks) as work:
        outranked(work)
    assert states(db) == ("active", "deleting", "aborted")
    assert undone == [1]
