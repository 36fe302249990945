"""Two hosts with a libvirtd, a daemon and disks each: a real guest moves between them, alive and cold."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.functional.harness import ADMIN, Daemon, eventually
from tests.integration.conftest import GuestImage
from tests.integration.processes import wait_until
from tests.integration.two_hosts import Pair, a_pair

PACE = 5  # a second
COUNTING = b"#!/bin/sh\n(n=0; while :; do n=$((n+1)); echo COUNT $n; sleep 0.2; done) >/dev/console 2>&1 &\n"


@pytest.fixture(scope="module")
def pair(guest_image: GuestImage) -> Iterator[Pair]:
    """Hosts `alpha` and `beta`, served."""
    with a_pair(guest_image) as made:
        made.start("alpha", "beta")
        yield made


@pytest.fixture(scope="module")
def guest(pair: Pair) -> Iterator[tuple[int, str]]:
    """A guest that counts, by id and name; deleted at the end, wherever it is, without a trace."""
    instance_id = pair.boot(image="little", instance_type="nano", host="alpha", network="net1", user_data=COUNTING)
    name = f"instance-{instance_id:08x}"
    yield instance_id, name
    pair.done(pair.api.delete(ADMIN, instance_id), 120)
    assert (pair.leftovers("alpha", name), pair.leftovers("beta", name)) == ([], [])


@pytest.fixture
def vm(pair: Pair, guest: tuple[int, str]) -> tuple[int, str]:
    """That guest, on alpha, counting."""
    instance_id, name = guest
    if pair.instance(instance_id).host != "alpha":
        pair.done(pair.api.live_migration(ADMIN, instance_id, "alpha"), 120)
    seen = len(pair.counts("alpha", name))
    wait_until(lambda: len(pair.counts("alpha", name)) > seen + 3, 10, "the guest counts")
    return guest


def where(pair: Pair, instance_id: int) -> tuple[str | None, str]:
    row = pair.instance(instance_id)
    return row.host, row.vm_state


def test_a_guest_migrates_alive_there_and_back_and_goes_on_counting(pair: Pair, vm: tuple[int, str]) -> None:
    instance_id, name = vm
    boots = pair.boots("alpha", name)
    for source, dest in (("alpha", "beta"), ("beta", "alpha")):
        last, began = pair.counts(source, name)[-1], time.monotonic()
        pair.done(pair.api.live_migration(ADMIN, instance_id, dest), 120)
        assert where(pair, instance_id) == (dest, "active")
        assert pair.leftovers(source, name) == []
        wait_until(lambda dest=dest: len(pair.counts(dest, name)) > 3, 5, "it counts there")  # type: ignore[misc]
        assert last < pair.counts(dest, name)[0] <= last + PACE * (time.monotonic() - began + 1)
        assert pair.boots(dest, name) == 0
    pair.done(pair.api.reboot(ADMIN, instance_id), 60)
    wait_until(lambda: pair.boots("alpha", name) > boots, 15, "it boots from its own disk, which came along")


@pytest.fixture
def slowly(pair: Pair) -> Iterator[Daemon]:
    """Alpha's daemon sends a MiB a second, and gives up after some seconds."""
    daemon = pair.daemons["alpha"]
    usual = dict(daemon.options)
    daemon.options.update(live_migration_bandwidth=1, live_migration_timeout=4)
    daemon.end()
    yield daemon.start()
    daemon.options = usual
    daemon.end()
    daemon.start()


@pytest.mark.usefixtures("slowly")
def test_a_migration_that_does_not_end_is_aborted_and_the_guest_goes_on(pair: Pair, vm: tuple[int, str]) -> None:
    instance_id, name = vm
    with pytest.raises(Exception, match="did not migrate within"):
        pair.done(pair.api.live_migration(ADMIN, instance_id, "beta"), 120)
    assert where(pair, instance_id) == ("alpha", "active")
    seen = len(pair.counts("alpha", name))
    wait_until(lambda: len(pair.counts("alpha", name)) > seen + 3, 5, "it counts on")
    eventually(lambda: pair.leftovers("beta", name) == [], 20)


def test_a_daemon_that_is_killed_while_a_guest_migrates_leaves_one_guest_and_a_true_record(
    pair: Pair, vm: tuple[int, str], slowly: Daemon
) -> None:
    instance_id, name = vm
    accepted = pair.api.live_migration(ADMIN, instance_id, "beta")
    wait_until(lambda: "Outgoing" in pair.hosts["alpha"].run("virsh", "domjobinfo", name), 10, "it is on its way")
    slowly.kill()
    slowly.start()
    with pytest.raises(Exception, match="alpha"):
        pair.done(accepted, 60)
    assert where(pair, instance_id) == ("alpha", "active")
    assert pair.guests("beta") == []
    eventually(lambda: pair.leftovers("beta", name) == [], 20)


def test_a_resized_guest_has_its_disk_on_the_other_host_and_can_go_back(pair: Pair, vm: tuple[int, str]) -> None:
    instance_id, name = vm
    boots = pair.boots("alpha", name)
    pair.done(pair.api.resize(ADMIN, instance_id, "micro"), 120)
    assert where(pair, instance_id) == ("beta", "resized")
    assert pair.guests("alpha") == []
    wait_until(lambda: pair.boots("beta", name) == boots + 1, 15, "it boots there from its own disk")
    wait_until(lambda: "vda:2097152" in pair.console("beta", name), 5, "its disk has the new size")
    pair.done(pair.api.revert_resize(ADMIN, instance_id), 120)
    assert where(pair, instance_id) == ("alpha", "active")
    assert pair.leftovers("beta", name) == []
    wait_until(lambda: pair.boots("alpha", name) == boots + 1, 15, "it boots here again, from what was kept")


def test_a_confirmed_resize_leaves_nothing_behind(pair: Pair, vm: tuple[int, str]) -> None:
    instance_id, name = vm
    boots = pair.boots("alpha", name)
    pair.done(pair.api.resize(ADMIN, instance_id, "micro"), 120)
    pair.done(pair.api.confirm_resize(ADMIN, instance_id), 60)
    assert where(pair, instance_id) == ("beta", "active")
    assert pair.leftovers("alpha", name) == []
    wait_until(lambda: pair.boots("beta", name) == boots + 1, 15, "it boots there from its own disk")
