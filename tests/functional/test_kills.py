"""The daemon is killed at every point of every operation: each ends done or failed, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from compute import service
from compute.states import Vm
from db import actions, volumes
from tests.functional.crashes import SETTLE, Crash, points_of, settled
from tests.functional.harness import ADMIN, Daemon, Deployment, eventually

Prepare = Callable[[Deployment], int]
Act = Callable[[Deployment, int], Any]


def booted(cloud: Deployment) -> int:
    return cloud.boot(host="h1")


def after(*verbs: str) -> Prepare:
    def prepare(cloud: Deployment) -> int:
        instance_id = booted(cloud)
        for verb in verbs:
            cloud.done(getattr(cloud.api, verb)(ADMIN, instance_id))
        return instance_id

    return prepare


def resized(cloud: Deployment) -> int:
    instance_id = booted(cloud)
    cloud.done(cloud.api.resize(ADMIN, instance_id, "m1.small"))
    return instance_id


def with_volume(cloud: Deployment) -> int:
    instance_id = booted(cloud)
    cloud.done(attach(cloud, instance_id))
    return instance_id


def a_volume(cloud: Deployment) -> int:
    facts = {"status": "available", "provider_location": "file:/v"}
    return cloud.db.run(volumes.create, user_id="admin", project_id="admin", size=1, **facts)


def attach(cloud: Deployment, instance_id: int) -> Any:
    return cloud.api.attach_volume(ADMIN, instance_id, a_volume(cloud), "/dev/vdb")


def detach(cloud: Deployment, instance_id: int) -> Any:
    return cloud.api.detach_volume(ADMIN, cloud.db.query(volumes.attachments_of, [instance_id])[0].volume_id)


def boot_from_volume(cloud: Deployment, _: int = 0) -> Any:
    mapping = [{"device_name": "/dev/vda", "volume_id": a_volume(cloud), "delete_on_termination": True}]
    return cloud.api.create(ADMIN, block_device_mapping=mapping, host="h1")


def booted_from_volume(cloud: Deployment) -> int:
    accepted = boot_from_volume(cloud)[0]
    cloud.done(accepted)
    return int(accepted.instance_id)


def verb(name: str, *args: Any, **kwargs: Any) -> Act:
    return lambda cloud, instance_id: getattr(cloud.api, name)(ADMIN, instance_id, *args, **kwargs)


@dataclass(frozen=True)
class Op:
    """An operation, and on which host which of the driver's methods it calls."""

    prepare: Prepare
    act: Act
    calls: tuple[tuple[str, str], ...]


OPS = {
    "boot": Op(lambda _: 0, lambda c, _: c.api.create(ADMIN, image="tiny", host="h1"), (("h1", "spawn"),)),
    "boot from volume": Op(lambda _: 0, boot_from_volume, (("h1", "spawn"),)),
    "delete": Op(booted, verb("delete"), (("h1", "destroy"),)),
    "delete with volume": Op(booted_from_volume, verb("delete"), (("h1", "destroy"),)),
    "reboot": Op(booted, verb("reboot"), (("h1", "reboot"),)),
    "soft reboot": Op(booted, verb("reboot", soft=True), (("h1", "reboot"),)),
    "stop": Op(booted, verb("stop"), (("h1", "power_off"),)),
    "start": Op(after("stop"), verb("start"), (("h1", "power_on"),)),
    "pause": Op(booted, verb("pause"), (("h1", "pause"),)),
    "unpause": Op(after("pause"), verb("unpause"), (("h1", "unpause"),)),
    "suspend": Op(booted, verb("suspend"), (("h1", "suspend"),)),
    "resume": Op(after("suspend"), verb("resume"), (("h1", "resume"),)),
    "rescue": Op(booted, verb("rescue"), (("h1", "rescue"),)),
    "unrescue": Op(after("rescue"), verb("unrescue"), (("h1", "unrescue"),)),
    "snapshot": Op(booted, verb("snapshot", "copy"), (("h1", "snapshot"),)),
    "set password": Op(booted, verb("set_admin_password", "s3cret"), (("h1", "set_admin_password"),)),
    "inject file": Op(booted, verb("inject_file", "/etc/motd", b"hi"), (("h1", "inject_file"),)),
    "reset network": Op(booted, verb("reset_network"), (("h1", "reset_network"),)),
    "inject network": Op(booted, verb("inject_network_info"), (("h1", "inject_network_info"),)),
    "attach": Op(booted, attach, (("h1", "attach_volume"),)),
    "detach": Op(with_volume, detach, (("h1", "detach_volume"),)),
    "resize": Op(booted, verb("resize", "m1.small"), (("h1", "migrate_disk_and_power_off"), ("h2", "finish_resize"))),
    "confirm": Op(resized, verb("confirm_resize"), (("h1", "confirm_resize"),)),
    "revert": Op(resized, verb("revert_resize"), (("h2", "destroy"), ("h1", "revert_resize"))),
    "delete resized": Op(resized, verb("delete"), (("h2", "destroy"), ("h1", "confirm_resize"))),
    "migrate": Op(
        booted,
        verb("live_migration", "h2"),
        (("h2", "pre_live_migration"), ("h1", "live_migration"), ("h1", "cleanup_live_migration")),
    ),
}
AT = [(name, host, point) for name, op in OPS.items() for host, method in op.calls for point in points_of(method)]
AT += [(name, host, SETTLE) for name, op in OPS.items() for host in dict.fromkeys(host for host, _ in op.calls)
       if (name, host) != ("migrate", "h2")]  # fmt: skip


@pytest.fixture
def two_hosts(deploy: Callable[..., Deployment], monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Deployment:
    """Hosts whose daemons end without waiting for anybody."""
    monkeypatch.setattr(service, "STRAGGLERS_WAIT_S", 0.0)
    (tmp_path / "images").mkdir()
    options = {"graceful_stop_timeout": 0, "rpc_response_timeout": 1, "images_path": str(tmp_path / "images")}
    return deploy("h1", "h2", default_instance_type="m1.tiny", **options)


@pytest.fixture
def crash() -> Iterator[Callable[[Deployment, str], Crash]]:
    """Make crashes whose threads end with the test."""
    made: list[Crash] = []

    def make(cloud: Deployment, host: str) -> Crash:
        made.append(Crash(cloud, host))
        return made[-1]

    yield make
    for one in made:
        one.release()


@pytest.mark.parametrize(("name", "host", "point"), AT, ids=[f"{name} at {host} {point}" for name, host, point in AT])
def test_a_daemon_killed_there_leaves_nothing_stuck(
    two_hosts: Deployment, crash: Callable[..., Crash], name: str, host: str, point: str
) -> None:
    op = OPS[name]
    instance_id = op.prepare(two_hosts)
    dying = crash(two_hosts, host)
    dying.at(point)
    op.act(two_hosts, instance_id)
    dying.restart()
    settled(two_hosts)
    last = two_hosts.db.query(actions.list_recent, limit=1)[0]
    assert last.state == "done" or last.error


def test_stragglers_that_wake_after_recovery_change_nothing(two_hosts: Deployment, crash: Callable[..., Crash]) -> None:
    dying = crash(two_hosts, "h1")
    dying.at("spawn.network")
    two_hosts.boot(host="h1", wait=False)
    dying.restart()
    settled(two_hosts)
    before = two_hosts.db.query(actions.list_recent)
    dying.release()
    assert two_hosts.db.query(actions.list_recent) == before
    settled(two_hosts)


def test_fifty_builds_survive_kill_minus_nine(tmp_path: Any, template: Any) -> None:
    options = {"fake_latency_s": 0.3, "redrive_interval": 0.5}
    with Deployment(tmp_path, template) as cloud, Daemon(tmp_path, "h1", **options) as daemon:
        made = [cloud.boot(wait=False) for _ in range(50)]
        eventually(lambda: any(cloud.instance(one).vm_state == Vm.ACTIVE for one in made))
        daemon.kill()
        daemon.options["fake_latency_s"] = 0
        daemon.start()
        eventually(lambda: all(cloud.instance(one).task_state is None for one in made), 30, "all settled")
        assert {cloud.instance(one).vm_state for one in made} == {Vm.ACTIVE}
