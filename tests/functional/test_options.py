"""Options of an operator that change what a host does by itself or gives away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from compute.errors import ComputeError, NoValidHostError, QuotaError
from compute.states import Vm
from db import compute_nodes, images, services
from tests.functional.harness import ADMIN, Deployment, eventually
from virt.spec import InstanceSpec

Deploy = Callable[..., Deployment]


def test_a_rescue_that_lasts_too_long_ends_by_itself(deploy: Deploy) -> None:
    cloud = deploy("h1", rescue_timeout=1, periodic_interval=0.3)
    instance_id = cloud.boot()
    cloud.done(cloud.api.rescue(ADMIN, instance_id))
    eventually(lambda: cloud.instance(instance_id).vm_state == Vm.ACTIVE, what="active again")
    assert [one.action for one in cloud.actions(instance_id)] == ["spawning", "rescuing", "unrescuing"]
    assert cloud.instance(instance_id).rescued_at is None


def test_a_rescue_lasts_for_ever_unless_somebody_wants_otherwise(deploy: Deploy) -> None:
    cloud = deploy("h1", periodic_interval=0.1)
    instance_id = cloud.boot()
    cloud.done(cloud.api.rescue(ADMIN, instance_id))
    reports = cloud.drivers["h1"].calls["host_resources"]
    eventually(lambda: cloud.drivers["h1"].calls["host_resources"] > reports + 5)
    assert cloud.instance(instance_id).vm_state == Vm.RESCUED


def test_a_rescue_boots_the_image_kernel_and_ramdisk_that_the_options_name(deploy: Deploy) -> None:
    cloud = deploy("h1", rescue_image_id="helper", rescue_kernel_id="vmlinuz", rescue_ramdisk_id="initrd")
    instance_id, booted = cloud.boot(), rescued_with(cloud)
    for name in ("helper", "vmlinuz", "initrd"):
        facts = {"location": f"http://images.example.org/{name}", "is_public": True, "properties": {}}
        cloud.db.run(images.create, name=name, status="active", disk_format="raw", **facts)
    cloud.done(cloud.api.rescue(ADMIN, instance_id))
    assert booted == [("helper", "vmlinuz", "initrd")]


def rescued_with(cloud: Deployment) -> list[tuple[str, ...]]:
    """What h1's driver is told to rescue guests with: image, kernel and ramdisk, from now on."""
    told: list[tuple[str, ...]] = []
    driver: Any = cloud.drivers["h1"]
    rescue = driver.rescue

    def listen(spec: InstanceSpec, rescued: InstanceSpec, progress: Any) -> None:
        told.append(tuple(one.name for one in (rescued.image, rescued.kernel, rescued.ramdisk) if one))
        rescue(spec, rescued, progress)

    driver.rescue = listen
    return told


def test_a_rescue_image_that_is_not_there_is_named(deploy: Deploy) -> None:
    cloud = deploy("h1", rescue_image_id="helper")
    instance_id = cloud.boot()
    with pytest.raises(ComputeError, match="rescue image helper is not registered"):
        cloud.done(cloud.api.rescue(ADMIN, instance_id))
    assert cloud.instance(instance_id).vm_state == Vm.ACTIVE


def test_what_is_reserved_for_the_host_is_not_given_away(deploy: Deploy) -> None:
    plain, reserved = (
        deploy("h1"),
        deploy("h1", reserved_host_vcpus=2, reserved_host_memory_mb=1000, reserved_host_disk_gb=3),
    )
    nodes = [cloud.db.query(compute_nodes.find, "h1") for cloud in (plain, reserved)]
    whole, less = [(node.vcpus, node.memory_mb, node.local_gb) for node in nodes if node is not None]
    assert less == (whole[0] - 2, whole[1] - 1000 + 512, whole[2] - 3)


def test_a_new_host_is_left_empty_until_it_is_enabled(deploy: Deploy) -> None:
    cloud = deploy("h1", enable_new_services=False, node_availability_zone="north")
    with pytest.raises(NoValidHostError, match="h1: disabled"):
        cloud.boot()
    cloud.db.run(services.set_disabled, "h1", "nova-compute", disabled=False)
    cloud.stop("h1")
    cloud.start("h1")
    assert cloud.instance(cloud.boot(availability_zone="north")).host == "h1"


@pytest.mark.parametrize(
    ("option", "files"),
    [
        ("quota_max_injected_files", [("/a", b""), ("/b", b"")]),
        ("quota_max_injected_file_content_bytes", [("/a", b"xy")]),
        ("quota_max_injected_file_path_bytes", [("/a", b"")]),
    ],
)
def test_files_to_inject_stay_within_their_quota(deploy: Deploy, option: str, files: list[tuple[str, bytes]]) -> None:
    with pytest.raises(QuotaError):
        deploy("h1", **{option: 1}).boot(injected_files=files)
    assert deploy("h1").boot(injected_files=files)


def test_snapshots_run_only_so_many_at_a_time(deploy: Deploy) -> None:
    cloud = deploy("h1", max_concurrent_snapshots=2)
    guests, driver = [cloud.boot() for _ in range(3)], cloud.drivers["h1"]
    driver.faults.hang("snapshot")
    orders = [cloud.api.snapshot(ADMIN, one, f"copy-{one}") for one in guests]
    eventually(lambda: driver.calls["snapshot"] == 2)
    eventually(lambda: cloud.services["h1"].host.snapshots.depth == 3)
    assert driver.calls["snapshot"] == 2
    driver.faults.release()
    assert [cloud.done(one)["state"] for one in orders] == ["done"] * 3
