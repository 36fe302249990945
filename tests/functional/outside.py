"""What others do who have a database client and oslo.messaging: rows by hand, as 2011.2's API wrote them, and casts."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tests.functional.harness import eventually

_ROW: dict[str, Any] = {
    "display_name": "outside",
    "hostname": "outside",
    "user_id": "ann",
    "project_id": "blue",
    "memory_mb": 512,
    "vcpus": 1,
    "local_gb": 0,
    "vm_state": "building",
    "task_state": "scheduling",
    "reservation_id": "r-outside0",
}


def insert_instance(url: str, **columns: Any) -> int:
    """The id of a new row that waits to be built from image `tiny`."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        values = {"uuid": str(uuid.uuid4()), **_ROW, **columns}
        names, marks = ", ".join(values), ", ".join(f":{name}" for name in values)
        statement = (
            f"INSERT INTO instances (image_id, instance_type_id, created_at, {names}) "
            "VALUES ((SELECT id FROM images WHERE name = 'tiny'), "
            f"(SELECT id FROM instance_types WHERE name = 'm1.tiny'), CURRENT_TIMESTAMP, {marks})"
        )
        connection.execute(sa.text(statement), values)
        key = connection.execute(sa.text("SELECT max(id) FROM instances WHERE uuid = :uuid"), values).scalar_one()
    engine.dispose()
    return int(key)


class PlainClient:
    """Talks to plain_client.py in a process of its own, in which nothing of ours is imported."""

    def __init__(self, url: str, server: str = "h1", configuration: Path | None = None) -> None:
        command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("plain_client.py")), url, server]
        command += [str(configuration)] if configuration else []
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> PlainClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)

    def ask(self, method: str, *, options: dict[str, Any] | None = None, **args: Any) -> dict[str, Any]:
        """Send one message and return {"result"} or {"error", "says"}."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({"method": method, "args": args, **(options or {})}) + "\n")
        stdin.flush()
        told: dict[str, Any] = json.loads(stdout.readline())
        return told

    def call(self, method: str, **args: Any) -> Any:
        """The result of a call; AssertionError when it is an error."""
        told = self.ask(method, **args)
        assert "result" in told, told
        return told["result"]

    def cast(self, method: str, **args: Any) -> None:
        """Send it and do not wait."""
        told = self.ask(method, options={"kind": "cast"}, **args)
        assert told == {"result": None}, told


class Rows:
    """Looks at a database as its administrator would."""

    def __init__(self, url: str) -> None:
        self.url, self._engine = url, sa.create_engine(url)

    def one(self, statement: str, **values: Any) -> Any:
        """The first row."""
        with self._engine.begin() as connection:
            return connection.execute(sa.text(statement), values).first()

    def state(self, instance_id: int) -> tuple[str, str | None, bool]:
        """vm_state, task_state and whether it is deleted."""
        found = self.one("SELECT vm_state, task_state, deleted FROM instances WHERE id = :id", id=instance_id)
        return found[0], found[1], bool(found[2])

    def until(self, instance_id: int, vm_state: str, timeout_s: float = 20.0) -> None:
        """Wait until it has this state and nothing is being done."""
        eventually(
            lambda: self.state(instance_id)[:2] == (vm_state, None), timeout_s, f"instance {instance_id} {vm_state}"
        )

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()


def drive(client: PlainClient, rows: Rows) -> None:
    """One life with 2011.2's verbs: boot a row, pause, unpause, look, err by name, delete."""
    instance_id = insert_instance(rows.url, task_state=None)
    client.cast("run_instance", instance_id=instance_id, injected_files=[])
    rows.until(instance_id, "active")
    for verb, state in (("pause", "paused"), ("unpause", "active"), ("suspend", "suspended"), ("resume", "active")):
        client.cast(f"{verb}_instance", instance_id=instance_id)
        rows.until(instance_id, state)
    assert isinstance(client.call("get_console_output", instance_id=instance_id), str)
    assert client.call("get_lock", instance_id=instance_id) is False
    assert set(client.call("get_vnc_console", instance_id=instance_id)) >= {"token", "host", "port"}
    assert client.ask("unpause_instance", instance_id=instance_id)["error"] == "InvalidStateError"
    assert client.ask("get_console_output", instance_id=999999)["error"] == "InstanceNotFoundError"
    client.cast("terminate_instance", instance_id=instance_id)
    rows.until(instance_id, "deleted")
    assert client.ask("get_lock", instance_id=instance_id)["error"] == "InstanceNotFoundError"
