"""A client with plain oslo.messaging, nothing of ours imported, drives a daemon process over the embedded bus."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.harness import Daemon, eventually
from tests.functional.outside import PlainClient, Rows, drive, insert_instance


@pytest.fixture
def rows(tmp_path: Path, template: Path) -> Iterator[Rows]:
    """A deployment's database."""
    shutil.copy(template, tmp_path / "nova.sqlite")
    looking = Rows(f"sqlite:///{tmp_path}/nova.sqlite")
    yield looking
    looking.close()


@pytest.fixture
def daemon(tmp_path: Path, rows: Rows) -> Iterator[Daemon]:
    """nova-compute of host h1."""
    with Daemon(tmp_path, "h1") as running:
        yield running


@pytest.fixture
def client(tmp_path: Path, daemon: Daemon) -> Iterator[PlainClient]:
    """The stranger."""
    with PlainClient(f"sqlite:///{tmp_path}/bus.sqlite") as talking:
        yield talking


def test_a_plain_client_drives_a_whole_life(client: PlainClient, rows: Rows, daemon: Daemon) -> None:
    drive(client, rows)
    assert "Traceback" not in daemon.log.read_text()


def test_a_call_returns_when_the_work_is_done(client: PlainClient, rows: Rows) -> None:
    instance_id = insert_instance(rows.url, task_state=None)
    client.call("run_instance", instance_id=instance_id)
    rows.until(instance_id, "active")
    assert client.call("pause_instance", instance_id=instance_id) is None
    assert rows.state(instance_id) == ("paused", None, False)


def test_the_same_cast_twice_is_done_once(client: PlainClient, rows: Rows, daemon: Daemon) -> None:
    instance_id = insert_instance(rows.url, task_state=None)
    options = {"kind": "cast", "context": {"request_id": "req-the-same"}}
    for _ in range(3):
        client.ask("run_instance", options=options, instance_id=instance_id)
    rows.until(instance_id, "active")
    client.call("get_console_topic")
    assert eventually(daemon.log.read_text).count("spawning started") == 1


def test_answers_keep_2011_2s_form(client: PlainClient) -> None:
    assert client.call("get_console_topic") == "console.h1"
    assert client.call("get_network_topic") == "network.h1"
    assert set(client.call("get_console_pool_info", console_type="vnc")) == {"address", "username", "password"}
