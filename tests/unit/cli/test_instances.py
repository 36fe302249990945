import pytest

from db import actions, networks
from tests.fakes.databases import an_instance


@pytest.fixture
def a_server(db):
    instance_id = an_instance(db)
    network_id = db.run(networks.create, label="private", cidr="10.0.0.0/24", bridge="br100")
    db.run(networks.claim, network_id, instance_id, "02:16:3e:00:00:01")
    return instance_id


def an_order(db, **changes):
    values = {"instance_id": 1, "action": "stopping", "step": "stop_instance", "request_id": "r", "user_id": "u"}
    return db.run(
        actions.create, {**values, "project_id": "lab", "args": "{}", "state": "failed", "host": "host1", **changes}
    )


def test_instances_are_listed_with_their_addresses(manage, a_server):
    said = manage("vm", "list")
    assert said.out.splitlines()[0].split()[:3] == ["id", "display_name", "host"]
    assert "private=10.0.0.2" in said.out
    [row] = manage("vm", "list", "--json").document
    assert (row["id"], row["name"], row["vm_state"]) == (1, "instance-00000001", "active")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["host1"], 1),
        (["host2"], 0),
        (["--fixed_ip", "10.0.0.2"], 1),
        (["--reservation", "r-none"], 0),
        (["--project", "lab"], 1),
        (["--project", "other"], 0),
        (["--project", "other", "--admin"], 0),
    ],
)
def test_a_list_is_narrowed_by_what_is_given(manage, a_server, words, found):
    assert len(manage("vm", "list", *words, "--json").document) == found


@pytest.mark.parametrize("key", ["1", "server-1", "instance-00000001", "00000000-0000-4000-8000-000000000001"])
def test_an_instance_is_an_id_a_uuid_or_a_name(manage, a_server, key):
    shown = manage("vm", "show", key, "--json").document
    needed = (
        "id uuid name display_name host vm_state task_state power_state instance_type image addresses "
        "security_groups volumes fault created_at launched_at"
    )
    assert shown["id"] == 1
    assert set(needed.split()) <= set(shown)


@pytest.mark.parametrize("key", ["0", "99999999999999999999", "' OR 1=1", "no-such", "..", "%s", "\u0661"])
def test_an_instance_that_is_none_exits_3(manage, a_server, key):
    assert manage("vm", "show", key).code == 3


def test_a_name_that_fits_several_exits_4_and_lists_them(manage, db):
    an_instance(db, display_name="twin")
    an_instance(db, display_name="twin")
    said = manage("vm", "show", "twin")
    assert said.code == 4
    assert "ids 2, 1" in said.err


def test_a_deleted_instance_is_shown_on_request(manage, db):
    an_instance(db, deleted=True, vm_state="deleted")
    assert manage("vm", "list", "--json").document == []
    assert manage("vm", "show", "1").code == 3
    assert manage("vm", "show", "1", "--deleted", "--json").document["deleted"] is True


def test_a_project_does_not_know_of_anothers_instance(manage, a_server):
    assert manage("vm", "show", "1", "--project", "other").code == 3


def test_the_journal_is_listed_newest_first_and_shown(manage, db, a_server):
    an_order(db, error="the hypervisor refused")
    an_order(db, state="done")
    assert [row["id"] for row in manage("action", "list", "--json").document] == [2, 1]
    assert [row["id"] for row in manage("action", "list", "--state", "failed", "--json").document] == [1]
    assert [row["id"] for row in manage("vm", "actions", "server-1", "--json").document] == [1, 2]
    assert manage("action", "show", "1", "--json").document["error"] == "the hypervisor refused"
    assert manage("action", "show", "3").code == 3
    assert manage("action", "show", "x").code == 2


def test_a_traceback_is_for_administrators(manage, db, a_server):
    an_order(db, traceback="Traceback: secret")
    assert "traceback" in manage("action", "show", "1", "--json").document
    assert "secret" not in manage("action", "show", "1", "--json", "--project", "lab").out


def test_an_instance_joins_a_security_group(manage, api, db, a_server):
    manage("secgroup", "create", "web", "--project", "lab")
    assert manage("secgroup", "add-instance", "web", "server-1", "--project", "lab").code == 0
    assert manage("secgroup", "add-instance", "web", "server-1", "--project", "lab").code == 4
    assert manage("vm", "show", "server-1", "--json").document["security_groups"] == ["web"]
    assert manage("secgroup", "remove-instance", "web", "server-1", "--project", "lab").code == 0
    assert {cast[:2] for cast in api.rpc.casts} == {("host1", "refresh_security_group_rules")}


def test_a_host_that_cannot_be_told_of_a_group_is_a_warning(manage, api, a_server):
    api.rpc.works = False
    manage("secgroup", "create", "web", "--project", "lab")
    said = manage("secgroup", "add-instance", "web", "server-1", "--project", "lab", "--json")
    assert (said.code, said.document["group"]) == (0, "web")
    assert said.err == "nova-manage: warning: the change is recorded, but could not be told to host1\n"
