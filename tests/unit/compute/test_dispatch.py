"""Messages are held against the contract before a verb sees them."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
from oslo_messaging.rpc import dispatcher as oslo_dispatcher

from compute.context import RequestContext
from compute.errors import ClaimLostError, InstanceNotFoundError, InvalidInputError
from compute.messaging.dispatch import MAX_DEPTH, MAX_ID, Dispatcher, exposed, one_line
from compute.messaging.serializer import ContextSerializer


class Manager:
    """A few verbs."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []

    @exposed
    def pause_instance(self, context: RequestContext, instance_id: int, action_id: int | None = None) -> str:
        """Hear it."""
        self.heard.append({"context": context, "instance_id": instance_id, "action_id": action_id})
        return "heard"

    @exposed
    def take(self, context: RequestContext, text: str = "", share: float = 0.5, more: Any = None) -> str:
        """Take nearly anything."""
        return text

    @exposed
    def fail(self, context: RequestContext, error: str) -> None:
        """Raise what is asked for."""
        raise {
            "gone": InstanceNotFoundError("no instance 7"),
            "lost": ClaimLostError("came twice"),
            "bug": ZeroDivisionError("oops"),
        }[error]

    def hidden(self, context: RequestContext) -> None:
        """Not a verb."""

    def _private(self) -> None:
        """Not a verb either."""


class Incoming:
    """A message as oslo.messaging hands it over."""

    def __init__(self, message: dict[str, Any], ctxt: Any, client_timeout: int | None = None) -> None:
        self.message, self.ctxt, self.client_timeout = message, ctxt, client_timeout

    def heartbeat(self) -> None:
        """A sign of life."""


def send(method: Any, args: Any = None, ctxt: Any = None, **message: Any) -> Any:
    """Dispatch one message; the error that a caller would get is raised."""
    envelope = {"method": method, "args": {} if args is None else args, **message}
    try:
        return Dispatcher(Manager(), "1.2").dispatch(Incoming(envelope, {} if ctxt is None else ctxt))
    except oslo_dispatcher.ExpectedException as exc:
        raise exc.exc_info[1] from None


def test_a_verb_gets_its_arguments_and_a_context() -> None:
    manager = Manager()
    message = {"method": "pause_instance", "args": {"instance_id": 7}}
    assert Dispatcher(manager, "1.2").dispatch(Incoming(message, {"user_id": "ann", "newer": 1})) == "heard"
    assert manager.heard[0]["context"].user_id == "ann"
    assert manager.heard[0]["instance_id"] == 7


@pytest.mark.parametrize(
    "method",
    ["", "nothing", "hidden", "_private", "__init__", "__class__", "pause_instance.__globals__", "target", "hints",
     "serves", "x" * 100_000, "a\nb"],
)  # fmt: skip
def test_what_is_no_verb_does_not_exist(method: str) -> None:
    with pytest.raises(oslo_dispatcher.NoSuchMethod) as told:
        send(method)
    assert len(str(told.value)) < 200
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("method", [None, 5, [], {"a": 1}])
def test_a_method_that_is_no_name_is_invalid(method: Any) -> None:
    with pytest.raises(InvalidInputError, match="must name its method"):
        send(method)


@pytest.mark.parametrize("version", ["2.0", "0.9", "1.3", "", "1", "one", "1.2.3.4", "1." + "9" * 50, None, 1.0, []])
def test_a_version_that_we_do_not_serve_is_named_as_that(version: Any) -> None:
    with pytest.raises(oslo_dispatcher.UnsupportedVersion):
        send("pause_instance", {"instance_id": 1}, version=version)


@pytest.mark.parametrize("version", ["1.0", "1.2", "1.1.5"])
def test_this_and_earlier_minor_versions_are_served(version: str) -> None:
    assert send("pause_instance", {"instance_id": 1}, version=version) == "heard"


def test_another_namespace_is_not_served() -> None:
    with pytest.raises(oslo_dispatcher.UnsupportedVersion):
        send("pause_instance", {"instance_id": 1}, namespace="baseapi")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({}, "instance_id"),
        ({"instance_id": 1, "force": True}, "force"),
        ({"instance_id": "1"}, "must be int"),
        ({"instance_id": True}, "must be int"),
        ({"instance_id": None}, "must be int"),
        ({"instance_id": [1]}, "must be int"),
        ({"instance_id": 1.5}, "must be int"),
        ({"instance_id": 0}, "from 1 to"),
        ({"instance_id": -1}, "from 1 to"),
        ({"instance_id": MAX_ID + 1}, "from 1 to"),
        ({"instance_id": 1, "action_id": 10**400}, "from 1 to"),
        ({"instance_id": 1, "context": {}}, "context"),
        ({"instance_id": 1, "self": {}}, "self"),
        ([1], "must be an object"),
        ("instance_id=1", "must be an object"),
    ],
)
def test_wrong_arguments_are_named(args: Any, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says) as told:
        send("pause_instance", args)
    assert len(str(told.value)) < 600


def nested(depth: int) -> Any:
    """A list in a list in a list..."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "says"),
    [("x" * 1_100_000, "bytes"), (["x"] * 200_000, "bytes"), (nested(MAX_DEPTH), "deep"), (nested(50_000), "deep")],
)
def test_what_is_too_large_or_too_deep_is_refused(value: Any, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        send("take", {"more": value})


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "ok" * 9 + "\udfff"])
def test_text_that_no_database_takes_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="NUL"):
        send("take", {"more": {"deep": [text]}})


@pytest.mark.parametrize("value", ["hunter2\0", ["hunter2"], {"hunter2": 1}])
def test_what_is_wrong_with_an_argument_is_said_without_showing_it(value: Any, caplog: Any) -> None:
    caplog.set_level("DEBUG")
    with pytest.raises(InvalidInputError, match="text") as told:
        send("take", {"text": value})
    assert "hunter2" not in str(told.value) + caplog.text


def test_a_whole_number_is_a_float_too_and_unicode_is_text() -> None:
    assert send("take", {"share": 1, "text": "grün 🚀\n", "more": nested(MAX_DEPTH - 5)}) == "grün 🚀\n"


@pytest.mark.parametrize(
    "ctxt",
    [[], "ann", 5, {"user_id": 5}, {"is_admin": "yes"}, {"user_id": "x" * 256}, {"request_id": "r" * 65},
     {"project_id": "a\0b"}, {"request_id": "req\nERROR forged"}],
)  # fmt: skip
def test_a_malformed_context_is_refused(ctxt: Any) -> None:
    with pytest.raises(InvalidInputError, match="context"):
        ContextSerializer().deserialize_context(ctxt)


def test_an_expected_error_reaches_the_caller_and_costs_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(InstanceNotFoundError):
        send("fail", {"error": "gone"})
    assert [(one.levelname, one.exc_info) for one in caplog.records] == [("INFO", None)]
    assert caplog.messages == ["fail refused: no instance 7"]


def test_a_lost_claim_is_worth_a_debug_line_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "compute")
    with pytest.raises(ClaimLostError):
        send("fail", {"error": "lost"})
    assert [one.levelname for one in caplog.records] == ["DEBUG"]


def test_a_defect_is_left_to_be_logged_with_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        send("fail", {"error": "bug"})


def test_a_refused_message_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    with pytest.raises(oslo_dispatcher.ExpectedException):
        Dispatcher(Manager(), "1.2").dispatch(Incoming({"method": "nothing"}, {}, client_timeout=10))
    assert threading.active_count() == before


def test_what_a_stranger_sent_is_one_printable_line() -> None:
    assert one_line("a\nb\x1b[31m  c" + "d" * 9999, 20) == "a b?[31m cdddddddddd"
