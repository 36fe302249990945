"""What a host's daemon does about files: old images go, left-over files are told of, and removed when asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from compute.periodic import Periodic
from tests.functional.harness import ADMIN, Deployment, eventually


def leave(cloud: Deployment, name: str) -> None:
    hypervisor = cloud.drivers["h1"].hypervisor
    held = hypervisor.new_footprint(name)
    held.disks["root"] = hypervisor.new_disk(1)
    hypervisor.save(held)


def audit(cloud: Deployment, **how: Any) -> list[tuple[str, str]]:
    return [(one["name"], one["kind"]) for one in cloud.api.audit_host(ADMIN, "h1", **how)]


@pytest.fixture
def deleted(one_host: Deployment) -> str:
    """The name of a guest that was deleted, and whose files are there still."""
    instance_id = one_host.boot()
    one_host.done(one_host.api.delete(ADMIN, instance_id))
    leave(one_host, f"instance-{instance_id:08x}")
    return f"instance-{instance_id:08x}"


def test_files_of_a_deleted_guest_are_told_of_and_left_alone(one_host: Deployment, deleted: str) -> None:
    assert audit(one_host) == [(deleted, "files")]
    assert audit(one_host) == [(deleted, "files")]


def test_files_of_a_deleted_guest_are_removed_on_request(one_host: Deployment, deleted: str) -> None:
    assert audit(one_host, repair=True) == [(deleted, "files")]
    assert audit(one_host) == []


def test_files_that_were_never_an_instances_stay_whatever_is_asked_for(one_host: Deployment) -> None:
    leave(one_host, "instance-000000ff")
    for _ in range(2):
        assert audit(one_host, repair=True) == [("instance-000000ff", "files")]


def test_files_of_another_hosts_guest_are_nobodys_business(deploy: Callable[..., Deployment]) -> None:
    cloud = deploy("h1", "h2")
    instance_id = cloud.boot(host="h2")
    leave(cloud, f"instance-{instance_id:08x}")
    assert audit(cloud, repair=True) == []


def test_a_guest_that_is_made_while_strays_are_looked_for_is_none(
    one_host: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = one_host.boot()
    monkeypatch.setattr(one_host.drivers["h1"], "stray_files", lambda _known: [f"instance-{made:08x}"])
    assert audit(one_host, repair=True) == []


def test_a_guest_without_its_files_is_told_of(one_host: Deployment) -> None:
    instance_id = one_host.boot()
    held = one_host.drivers["h1"].hypervisor.held(f"instance-{instance_id:08x}")
    assert held is not None
    held.disks = {}
    assert audit(one_host) == [(f"instance-{instance_id:08x}", "broken")]


def test_old_images_are_evicted_by_the_clock(deploy: Callable[..., Deployment]) -> None:
    cloud = deploy("h1", image_cache_interval=0.1)
    eventually(lambda: cloud.drivers["h1"].calls["evict_images"] > 1, 5)


def test_images_are_kept_for_ever_when_told_so(one_host: Deployment) -> None:
    service = one_host.services["h1"]
    periodic = Periodic(service.host, service.recovery, service.sync, lambda: None)
    assert periodic.upkeep(0, 0) == []
    assert [timer.name for timer in periodic.upkeep(60, 0)] == ["image cache"]
