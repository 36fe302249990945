"""Volumes that instances have from the start, and those they boot from."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from compute import errors
from compute.states import Vm
from compute.volume import Maker, Wish, create
from db import volumes
from tests.functional.harness import ADMIN, MEMBER, Deployment
from virt.errors import VolumeError
from virt.fake.build import RESCUE_DISK


def a_volume(cloud: Deployment, context: Any = ADMIN, **wish: Any) -> int:
    return create(cloud.db, context, Maker.from_conf(cloud.conf_for("h1")), Wish(**({"size_gb": 1} | wish))).id


def at(device: str, volume_id: int, **more: Any) -> list[dict[str, Any]]:
    return [{"device_name": device, "volume_id": volume_id, **more}]


def from_volume(cloud: Deployment, volume_id: int, *, wait: bool = True, **more: Any) -> int:
    mapping = at("/dev/vda", volume_id, **more)
    return cloud.boot(image=None, block_device_mapping=mapping, wait=wait)


def status(cloud: Deployment, volume_id: int) -> str:
    return cloud.db.query(volumes.get, volume_id).status


def file_of(cloud: Deployment, volume_id: int) -> Path:
    return cloud.directory / f"volumes/volume-{volume_id:08x}"


def disks(cloud: Deployment, instance_id: int) -> list[str]:
    return sorted(cloud.drivers["h1"].list_disks(f"instance-{instance_id:08x}"))


def test_an_instance_boots_from_a_volume_and_leaves_it_behind(one_host: Deployment) -> None:
    volume_id = a_volume(one_host)
    instance_id = from_volume(one_host, volume_id)
    assert disks(one_host, instance_id) == ["/dev/vda"]
    assert (status(one_host, volume_id), one_host.instance(instance_id).local_gb) == ("in-use", 0)
    one_host.done(one_host.api.delete(ADMIN, instance_id))
    assert (status(one_host, volume_id), file_of(one_host, volume_id).exists()) == ("available", True)


def test_a_volume_that_is_to_go_with_its_instance_goes(one_host: Deployment) -> None:
    volume_id = a_volume(one_host)
    instance_id = from_volume(one_host, volume_id, delete_on_termination=True)
    one_host.done(one_host.api.delete(ADMIN, instance_id))
    assert one_host.db.query(volumes.list_all) == []
    assert not file_of(one_host, volume_id).exists()


def test_an_instance_is_deleted_though_its_volume_cannot_be(one_host: Deployment) -> None:
    volume_id = a_volume(one_host)
    instance_id = from_volume(one_host, volume_id, delete_on_termination=True)
    file_of(one_host, volume_id).unlink()
    file_of(one_host, volume_id).mkdir()
    one_host.done(one_host.api.delete(ADMIN, instance_id))
    assert (one_host.instance(instance_id).deleted, status(one_host, volume_id)) == (True, "available")


def test_more_volumes_are_there_from_the_start(one_host: Deployment) -> None:
    root, data = a_volume(one_host), a_volume(one_host)
    mapping = at("/dev/vda", root) + at("vdc", data)
    instance_id = one_host.boot(image="tiny", block_device_mapping=mapping)
    shown = one_host.api.reads.show(ADMIN, instance_id)
    assert [(one["id"], one["mountpoint"], one["state"], one["is_root"]) for one in shown["volumes"]] == [
        (root, "/dev/vda", "attached", True), (data, "/dev/vdc", "attached", False)
    ]  # fmt: skip
    assert disks(one_host, instance_id) == ["/dev/vda", "/dev/vdc"]


def test_a_boot_that_fails_gives_its_volumes_back_and_deletes_none(one_host: Deployment) -> None:
    volume_id = a_volume(one_host)
    one_host.drivers["h1"].faults.fail("spawn", VolumeError("the server is dead"))
    with pytest.raises(errors.ComputeError, match="the server is dead"):
        from_volume(one_host, volume_id, delete_on_termination=True)
    assert (status(one_host, volume_id), file_of(one_host, volume_id).exists()) == ("available", True)
    assert from_volume(one_host, volume_id)


def test_a_boot_that_is_deleted_before_anybody_placed_it_gives_its_volumes_back(deploy: Any) -> None:
    cloud = deploy("h1", scheduler_mode="rpc")
    volume_id = a_volume(cloud)
    instance_id = from_volume(cloud, volume_id, wait=False, delete_on_termination=True)
    assert status(cloud, volume_id) == "attaching"
    cloud.done(cloud.api.delete(ADMIN, instance_id))
    assert status(cloud, volume_id) == "available"


def test_of_two_boots_from_one_volume_one_is_refused_and_told_by_whom(one_host: Deployment) -> None:
    volume_id = a_volume(one_host)

    def boot(_: int) -> Any:
        try:
            return from_volume(one_host, volume_id, wait=False)
        except errors.InUseError as exc:
            return str(exc)

    with ThreadPoolExecutor(2) as pool:
        answers = sorted(pool.map(boot, range(2)), key=lambda answer: isinstance(answer, str))
    assert answers[1] == f"volume {volume_id} is in use by instance {answers[0]} at /dev/vda"
    assert len(one_host.db.query(volumes.attachments_of, [answers[0]])) == 1


def test_of_many_attaches_of_one_volume_exactly_one_succeeds(one_host: Deployment) -> None:
    volume_id, instances = a_volume(one_host), [one_host.boot() for _ in range(4)]

    def attach(instance_id: int) -> int:
        try:
            one_host.done(one_host.api.attach_volume(ADMIN, instance_id, volume_id, "/dev/vdb"))
        except errors.InUseError:
            return 0
        return 1

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(attach, instances)) == 1
    assert len(one_host.db.query(volumes.attachments_of, instances)) == 1


def test_a_guest_that_keeps_its_volume_says_so_and_may_be_asked_again(one_host: Deployment) -> None:
    volume_id, instance_id = a_volume(one_host), one_host.boot()
    one_host.done(one_host.api.attach_volume(ADMIN, instance_id, volume_id, "/dev/vdb"))
    one_host.drivers["h1"].faults.fail("detach_volume", VolumeError("the guest did not let go of it within 60 s"))
    with pytest.raises(errors.ComputeError, match="did not let go"):
        one_host.done(one_host.api.detach_volume(ADMIN, volume_id))
    shown = one_host.api.reads.show(ADMIN, instance_id)
    assert (status(one_host, volume_id), shown["volumes"][0]["state"]) == ("in-use", "attached")
    assert "did not let go" in shown["fault"]["message"]
    one_host.done(one_host.api.detach_volume(ADMIN, volume_id))
    assert status(one_host, volume_id) == "available"


def test_nobody_takes_the_root_away_or_copies_what_is_not_there(one_host: Deployment) -> None:
    volume_id = a_volume(one_host)
    instance_id = from_volume(one_host, volume_id)
    with pytest.raises(errors.InvalidStateError, match=f"instance {instance_id} boots from it"):
        one_host.api.detach_volume(ADMIN, volume_id)
    with pytest.raises(errors.InvalidStateError, match=f"instance {instance_id} boots from it"):
        one_host.call("h1", "detach_volume", instance_id=instance_id, volume_id=volume_id)
    with pytest.raises(errors.InvalidStateError, match=f"boots from volume {volume_id}"):
        one_host.api.snapshot(ADMIN, instance_id, "copy")
    assert disks(one_host, instance_id) == ["/dev/vda"]


def test_an_instance_without_an_image_is_rescued_by_the_one_that_the_flag_names(deploy: Any) -> None:
    cloud = deploy("h1", rescue_image_id="tiny")
    instance_id = from_volume(cloud, a_volume(cloud))
    cloud.done(cloud.api.rescue(ADMIN, instance_id))
    assert RESCUE_DISK in disks(cloud, instance_id)
    cloud.done(cloud.api.unrescue(ADMIN, instance_id))
    assert disks(cloud, instance_id) == ["/dev/vda"]


def test_a_plain_cast_brings_its_mapping(deploy: Any) -> None:
    cloud = deploy("h1", scheduler_mode="rpc")
    volume_id, instance_id = a_volume(cloud), cloud.boot(wait=False)
    cloud.db.run(abandon, instance_id)
    cloud.ring("h1", "run_instance", instance_id=instance_id, block_device_mapping=at("/dev/vdb", volume_id))
    assert cloud.idle(instance_id).vm_state == Vm.ACTIVE
    assert status(cloud, volume_id) == "in-use"


def abandon(tx: Any, instance_id: int) -> None:
    """Leave a record as a plain scheduler does: no order yet."""
    from db import actions, instances

    actions.abort_open(tx, instance_id, "as if there had been none")
    instances.update(tx, instance_id, task_state="scheduling", host=None)


def test_an_instance_goes_where_its_volume_is(deploy: Any) -> None:
    cloud = deploy("h1", "h2")
    facts = {"status": "available", "host": "h2", "provider_location": "file:/v"}
    volume_id = cloud.db.run(volumes.create, user_id="a", project_id="admin", size=1, **facts)
    instance_id = cloud.boot(block_device_mapping=at("/dev/vdb", volume_id))
    assert cloud.instance(instance_id).host == "h2"
    with pytest.raises(errors.InvalidInputError, match="its volumes are on host h2, not on h1"):
        cloud.boot(host="h1", block_device_mapping=at("/dev/vdb", volume_id))


def test_a_volume_of_another_host_is_not_attached(deploy: Any) -> None:
    cloud = deploy("h1", "h2")
    elsewhere, instance_id = a_volume(cloud, host="h1"), cloud.boot(host="h2")
    with pytest.raises(
        errors.InvalidStateError, match=f"volume {elsewhere} is on host h1, instance {instance_id} is not"
    ):
        cloud.api.attach_volume(ADMIN, instance_id, elsewhere, "/dev/vdb")
    assert cloud.instance(instance_id).task_state is None


@pytest.mark.parametrize(
    ("mapping", "reason"),
    [
        ([], "nothing to boot from"), (at("/dev/vdb", 1), "nothing to boot from"),
        (at("/dev/vda", 1) + at("/dev/sda", 2), "device a comes twice"),
        (at("/dev/vda", 1) + at("/dev/vdb", 1), "volume 1 comes twice"),
        (at("/etc/vda", 1), "does not look like"), (at("/dev/vda", "x"), "not a whole number"),
        (at("/dev/vda", 1, snapshot_id=1), "needs device_name and volume_id"), (["vda"], "needs device_name"),
        (at("/dev/vda", 1, delete_on_termination="no"), "neither true nor false"), ("vda=1", "not a list"),
    ],
)  # fmt: skip
def test_a_mapping_that_makes_no_sense_is_refused(one_host: Deployment, mapping: Any, reason: str) -> None:
    with pytest.raises(errors.InvalidInputError, match=reason):
        one_host.boot(image=None, block_device_mapping=mapping)


def test_a_volume_is_not_shared_by_several_nor_taken_from_strangers(one_host: Deployment) -> None:
    volume_id = a_volume(one_host)
    with pytest.raises(errors.InvalidInputError, match="a volume is of one instance"):
        one_host.boot(min_count=2, block_device_mapping=at("/dev/vdb", volume_id))
    with pytest.raises(errors.VolumeNotFoundError):
        one_host.boot(MEMBER, block_device_mapping=at("/dev/vdb", volume_id))
    with pytest.raises(errors.VolumeNotFoundError):
        one_host.boot(block_device_mapping=at("/dev/vdb", 99))


@pytest.mark.parametrize(("verb", "where"), [("resize", "m1.small"), ("live_migration", "h2")])
def test_an_instance_does_not_leave_its_volume_behind(deploy: Any, verb: str, where: str) -> None:
    cloud = deploy("h1", "h2", default_instance_type="m1.tiny")
    instance_id = cloud.boot(block_device_mapping=at("/dev/vdb", a_volume(cloud, host="h1")))
    with pytest.raises(errors.MigrationError, match="which only host h1 has"):
        getattr(cloud.api, verb)(ADMIN, instance_id, where)
    assert cloud.instance(instance_id).task_state is None
