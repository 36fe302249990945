"""The RPC client: what travels, to whom, and what a caller is told when it does not arrive."""

from __future__ import annotations

from typing import Any

import oslo_messaging
import pytest

from compute.context import get_admin_context
from compute.errors import ComputeError, InstanceNotFoundError, UnreachableError
from compute.manager import ComputeManager
from compute.messaging.dispatch import verbs_of
from compute.orders import SECRET_ARGS, Bell
from compute.rpcapi import BROKER_DOWN_S, MESSAGE_ARGS, SINCE, SPOKEN, VERSION, ComputeRPC
from compute.states import MOVES

ADMIN = get_admin_context()


class Client:
    """An oslo.messaging client that only notes."""

    def __init__(self, error: Exception | None = None) -> None:
        self.sent: list[tuple[str, str | None, str, dict[str, Any]]] = []
        self.opened: list[tuple[str, str]] = []
        self.versions: list[str] = []
        self.error, self._topic, self._server = error, "", None

    def open(self, topic: str, version: str) -> Client:
        """A client of this topic."""
        self.opened.append((topic, version))
        self._topic = topic
        return self

    def prepare(self, server: str, version: str = SPOKEN) -> Client:
        """A client of this server."""
        self._server = server  # type: ignore[assignment]
        self.versions.append(version)
        return self

    def cast(self, _context: Any, verb: str, /, **args: Any) -> None:
        """Note it, or fail."""
        if self.error is not None:
            raise self.error
        self.sent.append((self._topic, self._server, verb, args))

    call = cast


def rpc(error: Exception | None = None) -> tuple[ComputeRPC, Client]:
    client = Client(error)
    return ComputeRPC(client.open, topic="compute", scheduler_topic="scheduler"), client


def bell(**more: Any) -> Bell:
    values = {"id": 5, "instance_id": 7, "host": "h1", "step": "pause_instance", "args": {}, **more}
    return Bell(**values)  # type: ignore[arg-type]


def test_a_bell_rings_at_the_host_with_the_orders_id() -> None:
    mine, client = rpc()
    assert mine.ring(ADMIN, bell())
    assert client.sent == [("compute", "h1", "pause_instance", {"instance_id": 7, "action_id": 5})]


def test_a_bell_for_nobody_yet_rings_at_the_scheduler() -> None:
    mine, client = rpc()
    assert mine.ring(ADMIN, bell(host=None, step="run_instance"))
    topic, server, verb, args = client.sent[0]
    assert (topic, server, verb) == ("scheduler", None, "run_instance")
    assert args == {"topic": "compute", "instance_id": 7, "action_id": 5}


def test_no_secret_travels_with_a_bell() -> None:
    mine, client = rpc()
    secrets = dict.fromkeys(SECRET_ARGS, "hush")
    for move in MOVES.values():
        mine.ring(ADMIN, bell(step=move.verb, args=secrets))
    assert "hush" not in repr(client.sent)


def test_what_travels_is_what_the_verbs_take() -> None:
    verbs = verbs_of(ComputeManager.__new__(ComputeManager))
    for verb, names in MESSAGE_ARGS.items():
        known = verbs[verb].__annotations__
        assert verb == "run_instance" or set(names) <= set(known), verb


@pytest.mark.parametrize(
    "error",
    [
        oslo_messaging.MessageDeliveryFailure("full"),
        oslo_messaging.MessageUndeliverable(None, None, None, None),
        oslo_messaging.MessagingTimeout("late"),
        ConnectionRefusedError("no broker"),
    ],
)
def test_a_bus_that_takes_nothing_makes_a_cast_false_and_a_call_unreachable(error: Exception) -> None:
    mine, _client = rpc(error)
    assert mine.ring(ADMIN, bell()) is False
    assert mine.ring(ADMIN, bell(host=None)) is False
    with pytest.raises(UnreachableError, match="h1 does not answer get_lock"):
        mine.call(ADMIN, "h1", "get_lock", instance_id=7)


def test_an_error_of_ours_comes_back_by_class_without_its_traceback() -> None:
    remote = type("InstanceNotFoundError_Remote", (InstanceNotFoundError,), {"__module__": "compute.errors_Remote"})
    mine, _client = rpc(remote("no instance 7\nTraceback (most recent call last):\n  File x"))
    with pytest.raises(InstanceNotFoundError) as told:
        mine.call(ADMIN, "h1", "get_lock", instance_id=7)
    assert str(told.value) == "no instance 7"
    assert type(told.value) is InstanceNotFoundError


def test_a_stranger_comes_back_as_an_error_that_names_it() -> None:
    mine, _client = rpc(oslo_messaging.RemoteError("NoSuchMethod", "no such", None))
    with pytest.raises(ComputeError, match="get_lock on h1: NoSuchMethod: no such"):
        mine.call(ADMIN, "h1", "get_lock", instance_id=7)


def test_one_client_serves_a_topic_however_often_it_is_used() -> None:
    mine, client = rpc()
    for host in ("h1", "h2", "h1"):
        mine.cast(ADMIN, host, "lock_instance", instance_id=7)
    assert [topic for topic, _version in client.opened] == ["compute"]


def test_an_argument_may_be_called_host_or_verb() -> None:
    mine, client = rpc()
    mine.call(ADMIN, "s1", "show_host_resources", host="h1", verb="x")
    assert client.sent[0][3] == {"host": "h1", "verb": "x"}


def test_a_broker_that_is_away_costs_the_first_cast_its_wait_and_no_other() -> None:
    mine, client = rpc(oslo_messaging.MessageDeliveryFailure("no broker"))
    assert mine.ring(ADMIN, bell()) is False
    client.error = None
    assert mine.ring(ADMIN, bell()) is False
    mine._down_until -= BROKER_DOWN_S
    assert mine.ring(ADMIN, bell()) is True


def test_a_host_without_a_queue_keeps_no_other_host_from_hearing() -> None:
    mine, client = rpc(oslo_messaging.MessageUndeliverable(None, None, None, None))
    assert mine.ring(ADMIN, bell()) is False
    client.error = None
    assert mine.ring(ADMIN, bell(host="h2")) is True


def test_a_bus_that_cannot_be_opened_does_not_undo_an_order() -> None:
    def fail(_topic: str, _version: str) -> Any:
        raise UnreachableError("transport_url: no such driver")

    mine = ComputeRPC(fail, topic="compute", scheduler_topic="scheduler")
    assert mine.ring(ADMIN, bell()) is False


def test_a_daemon_of_the_release_before_understands_all_but_what_is_new() -> None:
    client_rpc, client = rpc()
    client_rpc.call(ADMIN, "h1", "audit_host")
    client_rpc.call(ADMIN, "h1", "audit_host", repair=True)
    assert client.versions == [SPOKEN, "1.1"]
    assert {version for newer in SINCE.values() for version in newer.values()} <= {VERSION}
