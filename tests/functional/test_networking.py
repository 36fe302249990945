"""Addresses and networks of instances: had before the guest is made, given back with it; what cannot be had is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from compute import errors, network
from compute.states import Vm
from tests.functional.harness import ADMIN, MEMBER, Deployment
from virt.errors import NetworkError
from virt.spec import InstanceSpec


@pytest.fixture
def made(one_host: Deployment, monkeypatch: pytest.MonkeyPatch) -> list[InstanceSpec]:
    """What the driver was told to make."""
    driver, specs = one_host.drivers["h1"], []
    real = driver.spawn

    def spawn(spec: InstanceSpec, *args: Any) -> None:
        specs.append(spec)
        real(spec, *args)

    monkeypatch.setattr(driver, "spawn", spawn)
    return specs


def addresses(cloud: Deployment, instance_id: int) -> list[Any]:
    return list(cloud.api.reads.show(ADMIN, instance_id)["addresses"])


def test_the_hypervisor_is_told_the_address_that_the_record_has(one_host: Deployment, made: list[InstanceSpec]) -> None:
    (held,) = addresses(one_host, one_host.boot())
    (vif,) = made[0].vifs
    assert (vif.mac, str(vif.addresses[0].ip)) == (held["mac"], held["address"])
    assert (vif.network.dhcp_server, vif.network.routing) == (None, "none")


def test_the_hypervisor_is_told_how_the_network_is_served(deploy: Callable[..., Deployment]) -> None:
    cloud = deploy("h1", network_manager="flatdhcp", network_routing="routed")
    spec = cloud.services["h1"].host.spec_of(cloud.boot())
    assert (str(spec.vifs[0].network.dhcp_server), spec.vifs[0].network.routing) == ("10.1.0.1", "routed")


def test_a_pool_that_has_run_dry_is_the_fault_until_an_address_is_free(one_host: Deployment) -> None:
    network.create(one_host.db, ADMIN, label="narrow", cidr="10.9.0.0/30", bridge="br9")
    first = one_host.boot(network="narrow")
    accepted = one_host.api.create(ADMIN, image="tiny", instance_type="m1.tiny", network="narrow")[0]
    with pytest.raises(errors.ComputeError, match="narrow has no free address"):
        one_host.done(accepted)
    assert "narrow has no free address" in str(one_host.api.reads.show(ADMIN, accepted.instance_id)["fault"])
    one_host.done(one_host.api.delete(ADMIN, first))
    assert addresses(one_host, one_host.boot(network="narrow"))[0]["address"] == "10.9.0.2"


def test_a_network_that_the_host_cannot_have_is_the_fault_and_no_address_is_held(one_host: Deployment) -> None:
    one_host.drivers["h1"].faults.fail("spawn", NetworkError("network net1: bridge br1: eth9 is gone"), times=9)
    accepted = one_host.api.create(ADMIN, image="tiny", instance_type="m1.tiny")[0]
    with pytest.raises(errors.ComputeError, match="eth9 is gone"):
        one_host.done(accepted)
    assert one_host.instance(accepted.instance_id).vm_state == Vm.ERROR
    assert addresses(one_host, accepted.instance_id) == []


def test_an_instance_has_an_interface_on_each_network_in_one_order_for_good(
    one_host: Deployment, made: list[InstanceSpec]
) -> None:
    for number in (7, 8):
        network.create(one_host.db, ADMIN, label=f"n{number}", cidr=f"10.{number}.0.0/30", bridge=f"br{number}")
    instance_id = one_host.boot(network="n8", networks=["net1", "n7"])
    assert [vif.network.label for vif in made[0].vifs] == ["net1", "n7", "n8"]
    assert one_host.services["h1"].host.spec_of(instance_id).vifs == made[0].vifs
    one_host.done(one_host.api.delete(ADMIN, instance_id))
    assert [network.pool(one_host.db, number)[0] for number in (1, 2, 3)] == [0, 0, 0]


def test_an_instance_that_cannot_have_all_its_interfaces_holds_none(one_host: Deployment) -> None:
    network.create(one_host.db, ADMIN, label="narrow", cidr="10.9.0.0/30", bridge="br9")
    one_host.boot(network="narrow")
    accepted = one_host.api.create(ADMIN, image="tiny", instance_type="m1.tiny", network="net1", networks=["narrow"])[0]
    with pytest.raises(errors.ComputeError, match="narrow has no free address"):
        one_host.done(accepted)
    assert addresses(one_host, accepted.instance_id) == []


def test_another_projects_network_is_not_found(one_host: Deployment) -> None:
    network.create(one_host.db, ADMIN, label="theirs", cidr="10.9.0.0/24", bridge="br9", project_id="theirs")
    for wanted in ({"network": "theirs"}, {"networks": ["theirs"]}):
        with pytest.raises(errors.NetworkNotFoundError):
            one_host.api.create(MEMBER, image="tiny", instance_type="m1.tiny", **wanted)
    assert one_host.boot(ADMIN, network="theirs")
