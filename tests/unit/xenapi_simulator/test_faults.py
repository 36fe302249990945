"""What is to go wrong does, once, and then no more."""

from __future__ import annotations

import http.client
import threading
from contextlib import closing

import pytest

from tests.fakes.xenapi import Pool
from tests.unit.xenapi_simulator.conftest import Client

BROKEN = (http.client.RemoteDisconnected, OSError)


def test_an_error_comes_at_the_nth_call(pool: Pool, xapi: Client) -> None:
    pool.faults.fail("VM.clone", "SR_FULL", "1", "0", nth=2)
    xapi.vm()
    assert xapi.refused("VM.clone", pool.template, "two") == ["SR_FULL", "1", "0"]
    xapi.vm("three")
    assert not pool.faults.pending


def test_an_error_may_come_for_ever(pool: Pool, xapi: Client) -> None:
    pool.faults.fail("VM.clone", "SR_FULL", "1", "0", times=None)
    assert [xapi.refused("VM.clone", pool.template, "x")[0] for _ in range(3)] == ["SR_FULL"] * 3
    pool.faults.clear()
    xapi.vm()


def test_an_async_call_fails_by_its_task(pool: Pool, xapi: Client) -> None:
    vm = xapi.vm()
    pool.faults.fail("VM.start", "HOST_NOT_LIVE")
    task = xapi.wait(xapi("Async.VM.start", vm, False, False))
    assert (task["status"], task["error_info"]) == ("failure", ["HOST_NOT_LIVE"])
    assert xapi("VM.get_power_state", vm) == "Halted"


def test_an_async_call_that_makes_something_names_it(xapi: Client) -> None:
    task = xapi.wait(xapi("Async.VM.clone", xapi.pool.template, "one"))
    [vm] = xapi("VM.get_by_name_label", "one")
    assert (task["status"], task["result"]) == ("success", f"<value>{vm}</value>")


def test_a_reply_is_lost_after_the_work(pool: Pool, xapi: Client) -> None:
    pool.faults.lose_reply("VM.clone")
    with pytest.raises(BROKEN):
        xapi.vm()
    assert len(pool.find("VM", name_label="one")) == 1


def test_a_request_is_lost_before_the_work(pool: Pool, xapi: Client) -> None:
    pool.faults.drop_request("VM.clone")
    with pytest.raises(BROKEN):
        xapi.vm()
    assert not pool.find("VM", name_label="one")


def test_an_error_may_come_after_the_work(pool: Pool, xapi: Client) -> None:
    pool.faults.fail_after("VM.clone", "INTERNAL_ERROR", "oops")
    assert xapi.refused("VM.clone", pool.template, "one") == ["INTERNAL_ERROR", "oops"]
    assert len(pool.find("VM", name_label="one")) == 1


def test_a_vm_is_busy_while_something_is_done_to_it(pool: Pool, xapi: Client) -> None:
    vm = xapi.vm()
    pool.faults.never_finish("VM.start")
    task = xapi("Async.VM.start", vm, False, False)
    with pool.db.changed:
        assert pool.db.changed.wait_for(lambda: pool.db.get("VM", vm)["current_operations"], 20)
    assert xapi.refused("VM.destroy", vm) == ["OTHER_OPERATION_IN_PROGRESS", "VM", vm, "start"]
    assert xapi("VM.get_allowed_operations", vm) == []
    xapi("task.cancel", task)
    xapi.wait(task)
    xapi("VM.destroy", vm)


def test_a_cancelled_task_has_done_nothing(pool: Pool, xapi: Client) -> None:
    pool.faults.never_finish("VM.clone")
    task = xapi("Async.VM.clone", pool.template, "one")
    xapi("task.cancel", task)
    assert xapi.wait(task)["error_info"] == ["TASK_CANCELLED", task]
    assert not pool.find("VM", name_label="one")


def test_a_late_answer_holds_up_nobody_else(pool: Pool, xapi: Client) -> None:
    pool.faults.hang("VM.clone", 60)

    def wait_in_vain() -> None:
        with pytest.raises(BROKEN):
            xapi.vm()

    late = threading.Thread(target=wait_in_vain, daemon=True)
    late.start()
    with closing(Client(pool)) as other:
        while not pool.calls_of("VM.clone"):
            assert other("VM.get_all")
    pool.stop()
    late.join(20)
    assert not late.is_alive()
