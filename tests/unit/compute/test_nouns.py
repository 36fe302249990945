from datetime import datetime

import pytest

from compute import hosts, instance_types, quotas, server_groups, verify, volume
from compute.context import RequestContext, get_admin_context
from compute.errors import (
    DuplicateError,
    FlavorNotFoundError,
    InUseError,
    InvalidInputError,
    NotAuthorizedError,
    NotFoundError,
)
from db import actions, compute_nodes, networks, services, volumes
from tests.fakes.databases import a_database, an_instance

ADMIN = get_admin_context()
ANNA = RequestContext(user_id="anna", project_id="lab")
BOB = RequestContext(user_id="bob", project_id="other")


@pytest.fixture
def db(tmp_path):
    database = a_database(tmp_path)
    yield database
    database.dispose()


def a_type(db, context=ADMIN, **changes):
    values = {"name": "t", "memory_mb": 64, "vcpus": 1, "local_gb": 0, "flavorid": "99", **changes}
    return instance_types.create(db, context, **values)


@pytest.mark.parametrize(
    "changes",
    [
        {"memory_mb": 0},
        {"vcpus": 0},
        {"local_gb": -1},
        {"swap": -1},
        {"ephemeral_gb": -1},
        {"local_gb": 2, "ephemeral_gb": 2},
        {"memory_mb": "1.5"},
        {"memory_mb": 2**31},
        {"name": "n" * 256},
        {"flavorid": ""},
        {"vcpus": "\u0663"},
    ],
)
def test_an_instance_type_that_makes_no_sense_is_refused(db, changes):
    with pytest.raises(InvalidInputError):
        a_type(db, **changes)


def test_a_withdrawn_type_may_be_made_again_and_is_still_listed_as_inactive(db):
    a_type(db)
    instance_types.delete(db, ADMIN, "t")
    a_type(db)
    assert [one.deleted for one in instance_types.get_all(db, inactive=True) if one.name == "t"] == [True, False]


def test_a_type_that_an_instance_had_cannot_be_purged(db):
    an_instance(db, instance_type_id=a_type(db).id)
    with pytest.raises(InUseError):
        instance_types.delete(db, ADMIN, "t", purge=True)
    with pytest.raises(FlavorNotFoundError):
        instance_types.delete(db, ADMIN, "nothing")


def test_only_an_administrator_makes_types(db):
    with pytest.raises(NotAuthorizedError):
        a_type(db, ANNA)


def test_a_limit_of_a_project_replaces_the_configured_one(db):
    defaults = {"instances": 10, "metadata_items": 128}
    quotas.set_limit(db, ADMIN, "lab", "instances", 3)
    an_instance(db)
    [instances, items] = quotas.show(db, ANNA, "lab", defaults)
    assert (instances.limit, instances.used, instances.override) == (3, 1, True)
    assert (items.limit, items.used, items.override) == (128, None, False)


def test_limits_are_the_projects_own_business(db):
    with pytest.raises(NotFoundError):
        quotas.show(db, BOB, "lab", {})
    with pytest.raises(NotAuthorizedError):
        quotas.set_limit(db, ANNA, "lab", "instances", 1000)


@pytest.mark.parametrize(("resource", "limit"), [("chairs", 1), ("cores", -2), ("cores", "x")])
def test_a_limit_that_makes_no_sense_is_refused(db, resource, limit):
    with pytest.raises(InvalidInputError):
        quotas.set_limit(db, ADMIN, "lab", resource, limit)


def test_a_server_group_has_a_policy_and_members(db):
    group = server_groups.create(db, ANNA, name="g", policy="affinity")
    an_instance(db, server_group_id=group.id)
    assert server_groups.members(db, group) == {1: "host1"}
    with pytest.raises(InUseError):
        server_groups.delete(db, ANNA, "g")
    with pytest.raises(DuplicateError):
        server_groups.create(db, ANNA, name="g", policy="affinity")
    with pytest.raises(InvalidInputError):
        server_groups.create(db, ANNA, name="h", policy="soft")


def test_a_host_that_was_silent_for_a_day_and_five_seconds_is_down(db):
    service = {"host": "h", "binary": "nova-compute", "topic": "compute", "availability_zone": "nova"}
    service_id = db.run(services.create, service)
    db.run(services.take_over, service_id, "start")
    [liveness] = hosts.service_list(db)
    assert hosts.is_alive(liveness, 60)
    old = services.Liveness(liveness.service, 86405.0)
    assert not hosts.is_alive(old, 60)
    assert not hosts.is_alive(services.Liveness(liveness.service, None), 60)


def findings(db):
    return [(one.severity.value, one.check, one.subject) for one in verify.run(db, service_down_time_s=60)]


def registered(db, host="host1"):
    service = {"host": host, "binary": "nova-compute", "topic": "compute", "availability_zone": "nova"}
    service_id = db.run(services.create, service)
    db.run(services.take_over, service_id, "start")
    db.run(compute_nodes.report, service_id, host, {"vcpus": 8, "memory_mb": 8192, "local_gb": 100})


def test_an_instance_on_an_unregistered_host_is_found(db):
    an_instance(db)
    assert findings(db) == [("error", "hosts", "instance 1")]


def test_an_order_past_its_deadline_is_found(db):
    registered(db)
    an_instance(db, task_state="stopping", host=None)
    db.run(actions.create, an_order(deadline=datetime(2026, 1, 2)))  # noqa: DTZ001 - columns are naive UTC
    assert findings(db) == [("error", "orders", "action 1")]


def an_order(**changes):
    values = {"instance_id": 1, "action": "stopping", "step": "stop_instance", "request_id": "r", "user_id": "u"}
    return {**values, "project_id": "lab", "args": "{}", "state": "requested", "host": "host1", **changes}


def test_an_address_of_a_deleted_instance_is_found(db):
    network = {"label": "n", "cidr": "10.0.0.0/24", "bridge": "br100"}
    network_id = db.run(networks.create, **network)
    db.run(networks.claim, network_id, an_instance(db, deleted=True), "02:16:3e:00:00:01")
    assert findings(db) == [("error", "addresses", "address 10.0.0.2")]


def test_a_volume_on_a_deleted_instance_is_found(db):
    made = volume.register(db, ADMIN, volume.Wish(size_gb=1), location="file:/srv/v")
    db.run(volumes.reserve_attachment, made.id, an_instance(db, deleted=True), "/dev/vdb")
    assert findings(db) == [("error", "volumes", "volume 1")]


def test_a_volume_that_nobody_attaches_any_more_is_found(db):
    registered(db)
    made = volume.register(db, ADMIN, volume.Wish(size_gb=1), location="file:/srv/v")
    attachment_id = db.run(volumes.reserve_attachment, made.id, an_instance(db), "/dev/vdb")
    assert ("error", "volumes", "volume 1") in findings(db)
    db.run(volumes.set_attached, attachment_id)
    assert ("error", "volumes", "volume 1") not in findings(db)


def test_claims_that_drifted_are_a_warning(db):
    registered(db)
    db.run(compute_nodes.claim, "host1", vcpus=1, memory_mb=512, local_gb=0)
    assert findings(db) == [("warning", "claims", "host host1")]


def test_a_daemons_own_findings_stand_beside_ours_worst_first(db):
    registered(db)
    db.run(compute_nodes.claim, "host1", vcpus=1, memory_mb=0, local_gb=0)
    orphan = verify.Finding(severity=verify.Severity.ERROR, check="domains", subject="instance-00000009", message="x")
    found = verify.run(db, service_down_time_s=60, reports=[orphan])
    assert [one.check for one in found] == ["domains", "claims"]
    assert verify.has_errors(found)
