"""A delete does not wait for a host that is dead; the host removes what it has when it is back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from compute import service, verify
from compute.cleaning import forget_service
from compute.errors import ConflictError
from compute.ops import lifecycle
from compute.states import Vm
from db import actions, cleaning, instances, networks, services, volumes
from db.models import instance_actions
from db.session import Tx
from tests.functional.crashes import settled
from tests.functional.harness import ADMIN, Daemon, Deployment, eventually
from virt.errors import HypervisorError

QUICK = {"service_down_time": 3, "report_interval": 0.2}


@pytest.fixture
def pair(deploy: Callable[..., Deployment], monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """Two hosts; one that is stopped counts as silent at once."""
    monkeypatch.setattr(lifecycle, "ABORT_WAIT_S", 0.2)
    monkeypatch.setattr(service, "STRAGGLERS_WAIT_S", 0.0)
    return deploy("h1", "h2", graceful_stop_timeout=0)


def resized(cloud: Deployment) -> int:
    """An instance that went from h1 to h2 and waits to be confirmed."""
    instance_id = cloud.boot(host="h1")
    cloud.done(cloud.api.resize(ADMIN, instance_id, "m1.small"))
    return instance_id


def delete(cloud: Deployment, instance_id: int) -> None:
    """Delete it, as if the order had waited for longer than a host may be silent."""
    order = cloud.api.delete(ADMIN, instance_id)
    cloud.db.run(long_ago, order.action_id)
    cloud.done(order, 20)


def long_ago(tx: Tx, action_id: int) -> None:
    then = actions.seconds_from_now(tx, -600)
    tx.execute(instance_actions.update().where(instance_actions.c.id == action_id).values(requested_at=then))


def addresses(cloud: Deployment, instance_id: int) -> int:
    return len(cloud.db.query(networks.addresses_of, [instance_id]))


def cleaned(cloud: Deployment, instance_id: int) -> None:
    """No host has anything of it, and it holds nothing."""
    eventually(lambda: not cloud.db.query(cleaning.owed), what="nothing to clean up")
    assert [driver.hypervisor.leftovers() for driver in cloud.drivers.values()] == [{}, {}]
    assert addresses(cloud, instance_id) == 0
    assert cloud.instance(instance_id).deleted
    settled(cloud)


def test_a_resized_instance_is_deleted_while_its_old_host_is_dead(pair: Deployment) -> None:
    instance_id = resized(pair)
    pair.stop("h1")
    delete(pair, instance_id)
    row = pair.instance(instance_id)
    assert (row.vm_state, row.deleted, row.task_state) == (Vm.DELETED, True, None)
    assert [(one.action, one.host) for one in pair.actions(instance_id)[-2:]] == [
        ("deleting", "h2"),
        ("cleaning_up", "h1"),
    ]
    assert pair.cloud.open("h1").leftovers()
    pair.start("h1")
    cleaned(pair, instance_id)


def test_a_resized_instance_is_deleted_while_its_new_host_is_dead(pair: Deployment) -> None:
    instance_id = resized(pair)
    pair.stop("h2")
    delete(pair, instance_id)
    assert (len(pair.cloud.open("h1").leftovers()), len(pair.cloud.open("h2").names())) == (0, 1)
    pair.start("h2")
    cleaned(pair, instance_id)


@pytest.mark.parametrize("dying", ["h1", "h2"])
def test_a_delete_in_the_middle_of_a_migration_ends_whichever_host_dies(pair: Deployment, dying: str) -> None:
    instance_id = pair.boot(host="h1")
    pair.drivers["h1"].faults.hang("live_migration")
    pair.api.live_migration(ADMIN, instance_id, "h2")
    eventually(lambda: pair.drivers["h1"].calls["live_migration"])
    pair.stop(dying)
    delete(pair, instance_id)
    pair.drivers["h1"].faults.release()
    pair.start(dying)
    cleaned(pair, instance_id)


def test_what_a_guest_on_a_dead_host_may_use_is_nobody_elses(pair: Deployment) -> None:
    instance_id = pair.boot(host="h1")
    facts: dict[str, Any] = {"status": "available", "provider_location": "file:/v"}
    volume_id = pair.db.run(volumes.create, user_id="admin", project_id="admin", size=1, **facts)
    pair.done(pair.api.attach_volume(ADMIN, instance_id, volume_id, "/dev/vdb"))
    pair.stop("h1")
    delete(pair, instance_id)
    assert (addresses(pair, instance_id), pair.db.query(volumes.get, volume_id).status) == (1, "in-use")
    pair.start("h1")
    cleaned(pair, instance_id)
    assert pair.db.query(volumes.get, volume_id).status == "available"


def test_what_is_still_to_be_cleaned_up_shows(pair: Deployment) -> None:
    instance_id = pair.boot(host="h1")
    pair.stop("h1")
    delete(pair, instance_id)
    shown = [(one.action, one.state, one.host) for one in pair.actions(instance_id)]
    assert shown[1:] == [("deleting", "done", "h1"), ("cleaning_up", "requested", "h1")]
    found = [one for one in verify.run(pair.db, service_down_time_s=60) if one.check not in {"claims", "services"}]
    assert [(one.severity, one.check, one.subject) for one in found] == [("warning", "remains", "instance 1")]
    assert "host h1, which removes what it has of it" in found[0].message


def test_a_cleaning_up_that_fails_is_tried_again(pair: Deployment) -> None:
    instance_id = pair.boot(host="h1")
    pair.stop("h1")
    delete(pair, instance_id)
    pair.drivers["h1"].faults.fail("destroy", HypervisorError("busy"), times=2)
    pair.start("h1")
    cleaned(pair, instance_id)


def test_a_volume_that_goes_with_its_instance_goes_when_the_host_is_back(pair: Deployment) -> None:
    facts: dict[str, Any] = {"status": "available", "provider_location": "file:/v"}
    volume_id = pair.db.run(volumes.create, user_id="admin", project_id="admin", size=1, **facts)
    mapping = [{"device_name": "/dev/vda", "volume_id": volume_id, "delete_on_termination": True}]
    instance_id = pair.boot(image=None, block_device_mapping=mapping, host="h1")
    pair.stop("h1")
    delete(pair, instance_id)
    assert pair.db.query(volumes.get, volume_id).status == "in-use"
    pair.start("h1")
    cleaned(pair, instance_id)
    assert volume_id not in [one.id for one in pair.db.query(volumes.list_all)]


def test_a_guest_of_a_killed_daemon_ends_when_the_daemon_is_back(tmp_path: Path, template: Path) -> None:
    with Deployment(tmp_path, template, **QUICK).start("h2") as cloud, Daemon(tmp_path, "h1", **QUICK) as daemon:
        instance_id = cloud.boot(host="h1")
        daemon.kill()
        accepted = cloud.api.delete(ADMIN, instance_id)
        cloud.done(accepted, 20)
        assert cloud.db.query(actions.get, accepted.action_id).progress
        assert addresses(cloud, instance_id) == 1
        daemon.start()
        eventually(lambda: not cloud.db.query(cleaning.owed), what="nothing to clean up")
        assert addresses(cloud, instance_id) == 0


def test_what_a_host_still_does_is_ended_before_it_cleans_up(pair: Deployment) -> None:
    instance_id, faults = pair.boot(host="h1"), pair.drivers["h1"].faults
    faults.hang("pause")
    pair.api.pause(ADMIN, instance_id)
    (job,) = eventually(pair.services["h1"].host.tasks.running)
    pair.db.run(instances.update, instance_id, deleted=True, vm_state=Vm.DELETED)  # as another daemon would
    pair.db.run(cleaning.owe, pair.actions(instance_id)[0], "h1")
    eventually(lambda: job.cancelled, what="the pause cancelled")
    faults.release()
    eventually(lambda: not pair.db.query(cleaning.owed), what="nothing to clean up")
    eventually(lambda: not pair.services["h1"].host.tasks.running())
    assert pair.drivers["h1"].hypervisor.leftovers() == {}


def test_a_host_that_is_gone_for_good_is_forgotten_with_what_it_held(pair: Deployment) -> None:
    instance_id, other = pair.boot(host="h1"), pair.boot(host="h1")
    forget = partial(forget_service, pair.db, ADMIN, "h1", "nova-compute", 60)
    with pytest.raises(ConflictError, match="is alive"):
        forget()
    pair.stop("h1")
    with pytest.raises(ConflictError, match=r"h1 has 2 instances \(1, 2\)"):
        forget()
    delete(pair, instance_id)
    delete(pair, other)
    assert forget() == [instance_id, other]
    assert (addresses(pair, instance_id), addresses(pair, other)) == (0, 0)
    assert [one.check for one in verify.run(pair.db, service_down_time_s=60)] == []
    assert "h1" not in str(pair.db.query(services.list_all))
