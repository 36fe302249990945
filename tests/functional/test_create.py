"""What a create accepts, what it refuses, and what it writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from compute import errors, instance_types, key_pairs, quotas, security_groups
from compute.states import Vm
from db import instance_metadata, instances
from tests.functional.harness import ADMIN, MEMBER, Deployment

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE ann@blue"


def request(**changes: Any) -> dict[str, Any]:
    return {"image": "tiny", "instance_type": "m1.tiny", **changes}


def live(cloud: Deployment) -> int:
    return len(cloud.db.query(instances.list_all))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"image": "nope"}, errors.ImageNotFoundError),
        ({"instance_type": "nope"}, errors.FlavorNotFoundError),
        ({"network": "nope"}, errors.NetworkNotFoundError),
        ({"key_name": "nope"}, errors.KeyPairNotFoundError),
        ({"security_groups": ["nope"]}, errors.SecurityGroupNotFoundError),
        ({"server_group": "nope"}, errors.ServerGroupNotFoundError),
        ({"availability_zone": "nope"}, errors.NoValidHostError),
        ({"host": "nope"}, errors.HostNotFoundError),
        ({"kernel": "nope"}, errors.ImageNotFoundError),
        ({"min_count": 0}, errors.InvalidInputError),
        ({"min_count": 3, "max_count": 2}, errors.InvalidInputError),
        ({"display_name": "x" * 256}, errors.InvalidInputError),
        ({"display_name": "a\0b"}, errors.InvalidInputError),
        ({"user_data": b"x" * 65536}, errors.InvalidInputError),
        ({"metadata": {"k": "v" * 256}}, errors.InvalidInputError),
        ({"metadata": {str(n): "v" for n in range(129)}}, errors.QuotaError),
        ({"injected_files": [("/f", b"x")] * 6}, errors.QuotaError),
        ({"injected_files": [("/f", b"x" * 10241)]}, errors.QuotaError),
        ({"injected_files": [("/" + "f" * 255, b"x")]}, errors.QuotaError),
        ({"injected_files": [("/../etc/passwd", b"x")]}, errors.InvalidInputError),
        ({"injected_files": [("etc/passwd", b"x")]}, errors.InvalidInputError),
        ({"image": "x" * 10_000_000}, errors.ImageNotFoundError),
    ],
)
def test_a_bad_request_says_why_and_writes_nothing(
    one_host: Deployment, changes: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error) as caught:
        one_host.api.create(ADMIN, **request(**changes))
    assert type(caught.value) is error
    assert len(str(caught.value)) < 2000
    assert live(one_host) == 0


def test_everything_asked_for_reaches_the_hypervisor(one_host: Deployment) -> None:
    key_pairs.create(one_host.db, MEMBER, name="mine", public_key=PUBLIC_KEY)
    security_groups.create(one_host.db, MEMBER, name="web")
    instance_id = one_host.boot(
        MEMBER,
        display_name="web 1",
        key_name="mine",
        security_groups=["web"],
        metadata={"role": "web"},
        user_data=b"#!/bin/sh\n",
        injected_files=[("/etc/motd", b"hello\xff")],
        network="net1",
    )
    spec = one_host.services["h1"].host.spec_of(instance_id)
    assert (spec.display_name, spec.hostname, spec.key_data) == ("web 1", "web-1", PUBLIC_KEY)
    assert spec.injected_files == (("/etc/motd", b"hello\xff"),)
    assert spec.metadata == {"role": "web"}
    assert str(spec.vifs[0].addresses[0]) == "10.1.0.2/20"


def test_a_count_makes_numbered_instances_of_one_reservation(one_host: Deployment) -> None:
    accepted = one_host.api.create(ADMIN, **request(min_count=3, display_name="web"))
    rows = [one_host.instance(one.instance_id) for one in accepted]
    assert [row.display_name for row in rows] == ["web-1", "web-2", "web-3"]
    assert [row.launch_index for row in rows] == [0, 1, 2]
    assert len({row.reservation_id for row in rows}) == 1


def test_a_quota_reduces_a_count_down_to_the_least(deploy: Callable[..., Deployment]) -> None:
    cloud = deploy("h1", quota_instances=3)
    assert len(cloud.api.create(MEMBER, **request(min_count=1, max_count=5))) == 3
    with pytest.raises(errors.QuotaError, match="3 of 3 are in use"):
        cloud.api.create(MEMBER, **request())


def test_a_projects_own_quota_overrides_the_flag(deploy: Callable[..., Deployment]) -> None:
    cloud = deploy("h1", quota_instances=3)
    quotas.set_limit(cloud.db, ADMIN, MEMBER.project_id, "instances", 1)
    cloud.api.create(MEMBER, **request())
    with pytest.raises(errors.QuotaError):
        cloud.api.create(MEMBER, **request())


def test_a_failed_build_leaves_a_fault_and_no_claim(one_host: Deployment) -> None:
    one_host.drivers["h1"].faults.fail("spawn", errors_of_virt("no room in hell"), times=9)
    accepted = one_host.api.create(ADMIN, **request())[0]
    with pytest.raises(errors.ComputeError, match="no room in hell"):
        one_host.done(accepted)
    document = one_host.api.reads.show(ADMIN, accepted.instance_id)
    assert document["vm_state"] == Vm.ERROR
    assert document["addresses"] == []
    assert one_host.api.describe_resource(ADMIN, "h1")["resource"]["vcpus_used"] == 0


def test_a_build_that_fails_on_one_host_succeeds_on_another(deploy: Callable[..., Deployment]) -> None:
    cloud = deploy("h1", "h2", "h3")
    for host in ("h1", "h2"):
        cloud.drivers[host].faults.fail("spawn", errors_of_virt("bad host"), times=99)
    for _ in range(3):
        row = cloud.instance(cloud.boot())
        assert (row.host, row.vm_state) == ("h3", Vm.ACTIVE)


def test_metadata_is_kept(one_host: Deployment) -> None:
    instance_id = one_host.boot(metadata={"a": "1", "b": "2"})
    assert one_host.db.query(instance_metadata.get, instance_id) == {"a": "1", "b": "2"}


@pytest.mark.parametrize("changes", [{"host": "h1"}, {"availability_zone": "nova:h1"}])
def test_only_an_administrator_chooses_the_host(one_host: Deployment, changes: dict[str, Any]) -> None:
    with pytest.raises(errors.NotAuthorizedError):
        one_host.api.create(MEMBER, **request(**changes))
    assert one_host.instance(one_host.boot(**changes)).host == "h1"


def test_metadata_can_be_changed_within_its_quota(deploy: Callable[..., Deployment]) -> None:
    cloud = deploy("h1", quota_metadata_items=2)
    instance_id = cloud.boot(metadata={"a": "1"})
    assert cloud.api.update_or_create_instance_metadata(ADMIN, instance_id, {"a": "2", "b": "3"}) == {
        "a": "2",
        "b": "3",
    }
    with pytest.raises(errors.QuotaError):
        cloud.api.update_or_create_instance_metadata(ADMIN, instance_id, {"c": "4"})
    cloud.api.delete_instance_metadata(ADMIN, instance_id, "a")
    assert cloud.api.get_instance_metadata(ADMIN, instance_id) == {"b": "3"}


def errors_of_virt(text: str) -> Exception:
    from virt.errors import HypervisorError

    return HypervisorError(text)


def two_disks(cloud: Deployment, local_gb: int, ephemeral_gb: int) -> str:
    """A flavor whose local_gb are two disks."""
    name = f"two.{local_gb}.{ephemeral_gb}"
    instance_types.create(
        cloud.db, ADMIN, name=name, memory_mb=512, vcpus=1, local_gb=local_gb, flavorid=name, ephemeral_gb=ephemeral_gb
    )
    return name


def test_a_flavor_may_give_a_part_of_its_disk_to_a_second_one(one_host: Deployment) -> None:
    instance_id = one_host.boot(instance_type=two_disks(one_host, 5, 2))
    spec = one_host.services["h1"].host.spec_of(instance_id)
    assert (spec.root_gb, spec.ephemeral_gb) == (3, 2)
    assert one_host.instance(instance_id).local_gb == 5


def test_a_resize_follows_both_disks_and_shrinks_neither(deploy: Callable[..., Deployment]) -> None:
    cloud = deploy("h1", "h2")
    instance_id = cloud.boot(instance_type=two_disks(cloud, 5, 2), host="h1")
    with pytest.raises(errors.InvalidInputError, match="3 and 2 GiB"):
        cloud.api.resize(ADMIN, instance_id, two_disks(cloud, 6, 1))
    cloud.done(cloud.api.resize(ADMIN, instance_id, two_disks(cloud, 8, 4)))
    cloud.done(cloud.api.confirm_resize(ADMIN, instance_id))
    spec = cloud.services["h2"].host.spec_of(instance_id)
    assert (spec.root_gb, spec.ephemeral_gb) == (4, 4)
