"""A daemon that is told to stop finishes what it can, leaves the rest to its next start, and tells nobody's secrets."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compute import service
from compute.states import Vm
from db import services
from tests.functional.crashes import settled
from tests.functional.harness import ADMIN, Daemon, Deployment, eventually
from virt.errors import HypervisorError

CANARY = "canary-4711-song"


def test_a_stop_lets_operations_finish(deploy: Callable[..., Deployment]) -> None:
    cloud = deploy("h1")
    instance_id = cloud.boot()
    cloud.drivers["h1"].faults.delay("pause", 0.3)
    accepted = cloud.api.pause(ADMIN, instance_id)
    eventually(lambda: cloud.drivers["h1"].calls["pause"])
    cloud.stop("h1")
    assert cloud.done(accepted, 0)["state"] == "done"


def test_a_stopped_daemon_has_signed_off(one_host: Deployment) -> None:
    one_host.stop("h1")
    row = one_host.db.query(services.find, "h1", "nova-compute")
    assert row is not None
    assert row.heartbeat_at is None


@pytest.mark.parametrize("point", ["spawn.disks", "spawn.done"])
def test_what_does_not_finish_is_done_by_the_next_start(
    deploy: Callable[..., Deployment], monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    monkeypatch.setattr(service, "STRAGGLERS_WAIT_S", 0.0)
    cloud = deploy("h1", graceful_stop_timeout=0.1)
    cloud.drivers["h1"].faults.hang(point)
    instance_id = cloud.boot(wait=False)
    eventually(lambda: cloud.drivers["h1"].calls["spawn"])
    cloud.stop("h1")
    cloud.drivers["h1"].faults.release()
    assert cloud.instance(instance_id).task_state == "spawning"
    cloud.start("h1")
    assert cloud.idle(instance_id).vm_state == Vm.ACTIVE
    settled(cloud)


def test_sigterm_ends_the_process_with_zero_though_a_guest_hangs(tmp_path: Path, template: Path) -> None:
    with Deployment(tmp_path, template) as cloud:
        with Daemon(tmp_path, "h1", graceful_stop_timeout=0.2, fake_failures="pause:hang") as daemon:
            instance_id = cloud.boot()
            cloud.api.pause(ADMIN, instance_id)
            eventually(lambda: cloud.actions(instance_id)[-1].state == "running")
            assert daemon.end(signal.SIGTERM, 15) == 0
        row = cloud.db.query(services.find, "h1", "nova-compute")
        assert row is not None
        assert row.heartbeat_at is None
        assert (cloud.instance(instance_id).task_state, cloud.actions(instance_id)[-1].state) == ("pausing", "running")


def test_secrets_are_in_no_log_and_in_no_table(one_host: Deployment, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    instance_id = one_host.boot(injected_files=[("/root/key", CANARY.encode())])
    one_host.done(one_host.api.set_admin_password(ADMIN, instance_id, CANARY))
    one_host.done(one_host.api.inject_file(ADMIN, instance_id, "/x", CANARY.encode()))
    one_host.drivers["h1"].faults.fail("set_admin_password", HypervisorError("boom"))
    one_host.api.set_admin_password(ADMIN, instance_id, CANARY)
    one_host.idle(instance_id)
    assert CANARY not in caplog.text
    assert CANARY.encode() not in everything_on_disk(one_host.directory)
    assert {"set_admin_password", "inject_file"} <= set(one_host.drivers["h1"].calls)


def everything_on_disk(directory: Path) -> bytes:
    """Database, write-ahead log, bus and all."""
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


def test_a_daemon_whose_host_was_taken_over_stops_with_an_error(one_host: Deployment) -> None:
    daemon = one_host.services["h1"]
    row = one_host.db.query(services.find, "h1", "nova-compute")
    assert row is not None
    one_host.db.run(services.take_over, row.id, "another start")
    daemon.wait()
    assert daemon.exit_status == 1
    refused: Any = daemon.host.tasks
    with pytest.raises(Exception, match="this daemon stops"), refused.claim(ADMIN, 1, "pausing", None, step="x"):
        pass
