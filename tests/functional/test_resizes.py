"""Moves that nobody else tries: a guest that is off, a plain client's resize, a migration that nobody began."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from compute.errors import ComputeError
from compute.states import Vm
from db import actions, resizes, services
from tests.functional.crashes import settled, unsound
from tests.functional.harness import ADMIN, Deployment, eventually
from tests.functional.test_expiry import past
from virt.power_state import Power


@pytest.fixture
def pair(deploy: Callable[..., Deployment]) -> Deployment:
    """Two hosts."""
    return deploy("h1", "h2", graceful_stop_timeout=0)


def power(cloud: Deployment, host: str) -> Power:
    """The power state of the only guest of a host."""
    (guest,) = cloud.drivers[host].list_guests()
    return guest.power


@pytest.mark.parametrize(("end", "host"), [("confirm_resize", "h2"), ("revert_resize", "h1")])
def test_a_guest_that_is_off_stays_off_through_a_resize(pair: Deployment, end: str, host: str) -> None:
    instance_id = pair.boot(host="h1")
    pair.done(pair.api.stop(ADMIN, instance_id))
    pair.done(pair.api.resize(ADMIN, instance_id, "m1.small"))
    assert (pair.instance(instance_id).vm_state, power(pair, "h2")) == (Vm.RESIZED, Power.SHUTOFF)
    pair.done(getattr(pair.api, end)(ADMIN, instance_id))
    assert (pair.instance(instance_id).vm_state, power(pair, host)) == (Vm.STOPPED, Power.SHUTOFF)
    settled(pair)


def test_a_plain_clients_resize_is_cast_to_the_destination(pair: Deployment) -> None:
    instance_id = pair.boot(host="h1")
    pair.ring("h2", "prep_resize", instance_id=instance_id, flavor_id=2)
    eventually(lambda: pair.instance(instance_id).vm_state == Vm.RESIZED, what="resized")
    row = pair.instance(instance_id)
    assert (row.host, row.memory_mb, pair.api.has_finished_migration(ADMIN, instance_id)) == ("h2", 2048, True)
    settled(pair)


@pytest.mark.parametrize(
    ("host", "flavor", "why"), [("h1", 2, "same as the source"), ("h2", 99, "99"), ("h2", 5, "no room")]
)
def test_a_plain_clients_resize_that_cannot_be_is_refused(pair: Deployment, host: str, flavor: int, why: str) -> None:
    instance_id = pair.boot(host="h1")
    pair.stop("h2")
    pair.overrides["reserved_host_memory_mb"] = 2**26 - 4096
    pair.start("h2")
    with pytest.raises(ComputeError, match=why):
        pair.call(host, "prep_resize", instance_id=instance_id, flavor_id=flavor)
    assert pair.idle(instance_id).vm_state == Vm.ACTIVE
    assert unsound(pair) == []


def test_a_migration_that_its_host_never_began_gives_the_destinations_room_back(pair: Deployment) -> None:
    instance_id = pair.boot(host="h1")
    pair.stop("h1")
    row = pair.db.query(services.find, "h1", "nova-compute")
    assert row is not None
    pair.db.run(services.take_over, row.id, "a daemon that looks alive")
    order = pair.api.live_migration(ADMIN, instance_id, "h2")
    pair.db.run(past, order.action_id)
    eventually(lambda: pair.db.query(actions.get, order.action_id or 0).state == "failed", what="failed")
    move = pair.db.query(resizes.latest, instance_id)
    assert (move and move.status, pair.instance(instance_id).vm_state) == ("error", Vm.ACTIVE)
    pair.start("h1")
    settled(pair)
