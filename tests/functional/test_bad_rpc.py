"""Bad input over the bus: a clear answer to who waits, one line in the log, nothing written, and the daemon lives."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import oslo_messaging
import pytest
import sqlalchemy as sa

from compute.errors import ComputeError
from compute.messaging.transport import Bus
from db import images, models
from tests.functional.harness import ADMIN, Deployment
from virt.errors import VirtError

CONTEXT = ADMIN.to_dict()
GARBAGE: list[Any] = [
    None, True, 0, -1, 2**31, 2**63, -(2**70), 1.5, 1e308, "", "1", "h1", "\0", "\ud800", "x" * 300, "' OR 1=1 --",
    "../../etc/passwd", "${jndi:x}", [], {}, [[[[[]]]]], {"a": {"b": [None]}}, [0] * 100, "2011-04-15", "%s%n", "🚀",
]  # fmt: skip
NAMES = ["instance_id", "action_id", "volume_id", "flavor_id", "migration_id", "path", "dest", "self", "context", "x"]


class Raw:
    """Sends messages as they are, without a serializer or a client's checks."""

    def __init__(self, cloud: Deployment) -> None:
        self._bus = Bus(cloud.conf_for("raw"))
        self.transport = self._bus._transport
        self.close = self._bus.close

    def send(self, message: dict[str, Any], ctxt: Any = None, *, wait: bool = True, timeout: int = 10) -> Any:
        """The answer, or the remote error's class name and text."""
        target = oslo_messaging.Target(exchange="nova", topic="compute", server="h1")
        try:
            return self.transport._send(
                target, CONTEXT if ctxt is None else ctxt, message, wait_for_reply=wait, timeout=timeout
            )
        except oslo_messaging.RemoteError as exc:
            return exc.exc_type, exc.value
        except (oslo_messaging.MessagingException, ComputeError, VirtError, UnicodeError) as exc:
            return type(exc).__name__.removesuffix("_Remote"), str(exc)


@pytest.fixture
def raw(one_host: Deployment) -> Any:
    """A sender of anything to h1."""
    sender = Raw(one_host)
    yield sender
    sender.close()


@pytest.fixture
def unharmed(one_host: Deployment, caplog: pytest.LogCaptureFixture) -> Any:
    """A check that nothing was written, nothing logged but single lines, and h1 answers still."""
    caplog.set_level(logging.INFO)
    before = written(one_host)

    def check() -> None:
        assert one_host.call("h1", "get_console_topic") == "console.h1"
        assert written(one_host) == before
        ours = [one for one in caplog.records if one.name.startswith(("compute", "oslo_messaging", "virt", "db"))]
        assert [one.getMessage() for one in ours if one.exc_info] == []
        assert not any("\n" in one.getMessage() or len(one.getMessage()) > 1000 for one in ours)

    return check


def written(cloud: Deployment) -> dict[str, Any]:
    """Every row of the tables that verbs write."""
    tables = [models.instances, models.instance_actions, models.volumes, models.migrations, models.fixed_ips]
    with cloud.db.read() as tx:
        return {table.name: [tuple(row) for row in tx.execute(sa.select(table))] for table in tables}


@pytest.mark.parametrize(
    "method",
    ["nothing", "_leg", "__init__", "__class__", "run_instance.__globals__", "_host", "stop", "hints", "target", "",
     "x" * 5000, "line\nbreak"],
)  # fmt: skip
def test_a_method_that_is_none_is_told(raw: Raw, unharmed: Callable[[], None], method: str) -> None:
    assert raw.send({"method": method, "args": {}})[0] == "NoSuchMethod"
    unharmed()


@pytest.mark.parametrize("version", ["2.0", "1.999", "abc", "", "1.0.0.0.0", 1.0, None])
def test_a_version_that_is_not_served_is_told(raw: Raw, unharmed: Callable[[], None], version: Any) -> None:
    told = raw.send({"method": "get_lock", "args": {"instance_id": 1}, "version": version})
    assert told[0] == "UnsupportedVersion"
    unharmed()


@pytest.mark.parametrize(
    "args",
    [{}, {"instance_id": "1"}, {"instance_id": 1, "x": 1}, {"instance_id": None}, {"instance_id": 2**70},
     {"instance_id": -5}, [], "x", 5, {"instance_id": {"$gt": 0}}],
)  # fmt: skip
def test_wrong_arguments_are_told(raw: Raw, unharmed: Callable[[], None], args: Any) -> None:
    assert raw.send({"method": "pause_instance", "args": args})[0] == "InvalidInputError"
    unharmed()


def test_no_arguments_at_all_are_told(raw: Raw, unharmed: Callable[[], None]) -> None:
    assert raw.send({"method": "pause_instance"})[0] == "InvalidInputError"
    assert raw.send({"args": {}})[0] == "InvalidInputError"
    unharmed()


def test_an_instance_that_is_none_is_told(raw: Raw, unharmed: Callable[[], None]) -> None:
    for verb in ("pause_instance", "terminate_instance", "get_console_output", "get_lock", "run_instance"):
        told = raw.send({"method": verb, "args": {"instance_id": 2**31 - 1}})
        assert told is None or told[0] == "InstanceNotFoundError", verb
    unharmed()


@pytest.mark.parametrize("ctxt", [[], "ann", 5, {"user_id": 5}, {"is_admin": "yes"}, {"request_id": "r" * 999}])
def test_a_malformed_context_is_told(raw: Raw, unharmed: Callable[[], None], ctxt: Any) -> None:
    assert raw.send({"method": "get_console_topic", "args": {}}, ctxt)[0] == "InvalidInputError"
    unharmed()


def test_arguments_of_ten_megabytes_are_refused_where_they_are_sent(raw: Raw, unharmed: Callable[[], None]) -> None:
    huge = {"instance_id": 1, "path": "/x", "file_contents": "x" * 10_000_000}
    assert raw.send({"method": "inject_file", "args": huge})[0] == "MessageDeliveryFailure"
    unharmed()


def test_arguments_larger_than_any_verb_needs_are_told(raw: Raw, unharmed: Callable[[], None]) -> None:
    large = {"instance_id": 1, "path": "/x", "file_contents": "x" * 1_500_000}
    assert raw.send({"method": "inject_file", "args": large})[0] == "InvalidInputError"
    unharmed()


@pytest.mark.parametrize(("method", "args", "told"), [
    ("attach_volume", {"volume_id": 77, "mountpoint": "/dev/vdb"}, ("VolumeNotFoundError", "no volume 77")),
    ("inject_file", {"path": "/x", "encoding": "rot13"}, ("InvalidInputError", "encoding 'rot13' is not")),
])  # fmt: skip
def test_a_thing_that_is_none_is_told_by_the_class_of_the_contract(
    raw: Raw, one_host: Deployment, method: str, args: dict[str, Any], told: tuple[str, str]
) -> None:
    kind, words = raw.send({"method": method, "args": {"instance_id": one_host.boot()} | args})
    assert (kind, words[: len(told[1])]) == told


def test_a_migration_to_a_host_that_is_none_names_it(raw: Raw, one_host: Deployment) -> None:
    key = one_host.boot()
    raw.send({"method": "live_migration", "args": {"instance_id": key, "dest": "nowhere"}})
    one_host.idle(key)
    assert one_host.actions(key)[-1].error == "no compute host nowhere"


@pytest.mark.parametrize(("image_id", "reason"), [(99, "no image 99"), (1, "image 1 is active: a snapshot goes into")])
def test_a_snapshot_into_what_does_not_wait_for_one_ends_and_harms_no_image(
    raw: Raw, one_host: Deployment, image_id: int, reason: str
) -> None:
    key, file = one_host.boot(), Path(one_host.conf_for("h1").images_path) / "00000001"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"somebody's image")
    raw.send({"method": "snapshot_instance", "args": {"instance_id": key, "image_id": image_id}})
    assert one_host.idle(key).vm_state == "active"
    assert str(one_host.actions(key)[-1].error).startswith(reason)
    assert file.read_bytes() == b"somebody's image"
    assert one_host.db.query(images.get, 1).status == "active"


def test_a_cpu_that_makes_no_sense_costs_no_traceback(raw: Raw, unharmed: Callable[[], None]) -> None:
    assert raw.send({"method": "compare_cpu", "args": {"cpu_info": "{"}})[0] == "IncompatibleCpuError"
    unharmed()


def test_deep_nesting_is_told(raw: Raw, unharmed: Callable[[], None]) -> None:
    value: Any = []
    for _ in range(400):
        value = [value]
    assert raw.send({"method": "run_instance", "args": {"instance_id": 1, "x": value}})[0] == "InvalidInputError"
    unharmed()


def test_what_is_no_message_is_dropped(raw: Raw, unharmed: Callable[[], None]) -> None:
    for message in ([], "x", 5, None, [[{}]]):
        raw.send(message, wait=False)  # type: ignore[arg-type]
    unharmed()


def test_five_hundred_random_messages_change_nothing(
    raw: Raw, one_host: Deployment, unharmed: Callable[[], None]
) -> None:
    lot = random.Random(2011)
    verbs = [*vars(type(one_host.services["h1"].manager)), "nothing", "__del__", ""]
    harmless = {"update_available_resource", "create_shared_storage_test_file", "__dict__"}
    for _ in range(500):
        args = {lot.choice(NAMES): lot.choice(GARBAGE) for _ in range(lot.randrange(4))}
        message = {"method": lot.choice([one for one in verbs if one not in harmless]), "args": args}
        if lot.random() < 0.2:
            message[lot.choice(["version", "namespace", "args", "method"])] = lot.choice(GARBAGE)
        raw.send(message, lot.choice([CONTEXT, CONTEXT, CONTEXT, *GARBAGE]), wait=lot.random() < 0.3)
    unharmed()
