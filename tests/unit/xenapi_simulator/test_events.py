"""Events tell what changed since a token."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest

from tests.fakes.xenapi import Pool
from tests.unit.xenapi_simulator.conftest import Client


def changes(xapi: Client, token: str, *classes: str, timeout: float = 0.0) -> tuple[list[tuple[str, str, str]], str]:
    """(operation, class, reference) of each event, and the next token."""
    batch = xapi("event.from", list(classes), token, timeout)
    return [(event["operation"], event["class"], event["ref"]) for event in batch["events"]], batch["token"]


def test_everything_is_new_to_who_has_no_token(pool: Pool, xapi: Client) -> None:
    events, _ = changes(xapi, "", "vm")
    assert {event[:2] for event in events} == {("add", "vm")}
    assert {event[2] for event in events} == set(pool.records("VM"))


def test_each_change_is_told_with_the_record(xapi: Client) -> None:
    vm = xapi.vm()
    _, token = changes(xapi, "", "vm")
    xapi("VM.set_name_label", vm, "renamed")
    [event] = xapi("event.from", ["vm"], token, 0.0)["events"]
    assert (event["operation"], event["snapshot"]["name_label"]) == ("mod", "renamed")


def test_what_is_gone_is_told_without_a_record(xapi: Client) -> None:
    vm = xapi.vm()
    _, token = changes(xapi, "", "VM")
    xapi("VM.destroy", vm)
    [event] = xapi("event.from", ["VM"], token, 0.0)["events"]
    assert (event["operation"], event["ref"], "snapshot" in event) == ("del", vm, False)


def test_what_came_and_went_is_not_told(xapi: Client) -> None:
    _, token = changes(xapi, "", "vm")
    xapi("VM.destroy", xapi.vm())
    assert changes(xapi, token, "vm")[0] == []


def test_other_classes_and_objects_are_not_told(xapi: Client) -> None:
    vm, other = xapi.vm(), xapi.vm("other")
    _, token = changes(xapi, "", "*")
    xapi("VM.set_name_label", other, "renamed")
    assert changes(xapi, token, "host", f"vm/{vm}")[0] == []
    assert changes(xapi, token, f"vm/{other}")[0] == [("mod", "vm", other)]


def test_who_waits_is_told_at_once(pool: Pool, xapi: Client) -> None:
    vm = xapi.vm()
    _, token = changes(xapi, "", "vm")
    with closing(Client(pool)) as other:
        later = threading.Timer(0.1, other, ("VM.set_name_label", vm, "renamed"))
        later.start()
        started = time.monotonic()
        assert changes(xapi, token, "vm", timeout=60.0)[0] == [("mod", "vm", vm)]
        assert time.monotonic() - started < 10
        later.join()


def test_who_waits_in_vain_gets_nothing(xapi: Client) -> None:
    _, token = changes(xapi, "", "vm")
    assert changes(xapi, token, "vm", timeout=0.01)[0] == []


def test_a_session_that_ends_ends_its_waiting(pool: Pool, xapi: Client) -> None:
    handle, (_, token) = xapi.session.handle, changes(xapi, "", "vm")
    later = threading.Timer(0.1, pool.expire_sessions)
    later.start()
    answer = getattr(xapi.session, "event.from")(handle, ["vm"], token, 60.0)
    assert answer["ErrorDescription"][0] == "SESSION_INVALID"
    later.join()


@pytest.mark.parametrize(("classes", "token", "code"), [(["vm"], "x", "TOKEN"), (["vm/1/2"], "", "SUBSCRIPTION")])
def test_nonsense_is_refused(xapi: Client, classes: list[str], token: str, code: str) -> None:
    assert code in xapi.refused("event.from", classes, token, 0.0)[0]


def test_allowed_operations_follow_and_are_told(xapi: Client) -> None:
    vm = xapi.vm()
    vbd = xapi.vbd(vm, xapi.vdi())
    _, token = changes(xapi, "", "vbd")
    xapi("VM.start", vm, False, False)
    assert changes(xapi, token, "vbd")[0] == [("mod", "vbd", vbd)]
    assert "unplug" in xapi("VBD.get_allowed_operations", vbd)
