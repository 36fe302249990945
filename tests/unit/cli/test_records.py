import pytest

from compute.errors import UnreachableError
from db import networks, services, volumes
from tests.fakes.databases import an_instance

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGkAzvNzXFxQGPUFnEyMTJVaLf3QmbAT3eUmzWuNhCNi anna@host"


@pytest.fixture
def a_host(db):
    service = {"host": "host1", "binary": "nova-compute", "topic": "compute", "availability_zone": "nova"}
    service_id = db.run(services.create, service)
    db.run(services.take_over, service_id, "start-1")
    from db import compute_nodes

    totals = {"vcpus": 8, "memory_mb": 16384, "local_gb": 200, "cpu_allocation_ratio": 16.0, "cpu_info": '{"arch":"x"}'}
    db.run(compute_nodes.report, service_id, "host1", totals)


def test_a_flavor_is_created_listed_and_withdrawn(manage):
    made = manage("flavor", "create", "m1.nano", "96", "1", "0", "42", "--json")
    assert (made.code, made.document["memory_mb"], made.document["flavorid"]) == (0, 96, "42")
    assert [row["name"] for row in manage("flavor", "list", "m1.nano", "--json").document] == ["m1.nano"]
    assert manage("flavor", "create", "m1.nano", "96", "1", "0", "43").code == 4
    assert manage("instance_type", "delete", "m1.nano").code == 0
    assert manage("flavor", "list", "m1.nano").code == 3


@pytest.mark.parametrize("bad", [["x", "0", "1", "0", "9"], ["x", "9", "one", "0", "9"], ["", "9", "1", "0", "9"]])
def test_a_flavor_that_makes_no_sense_exits_2(manage, bad):
    assert manage("flavor", "create", *bad).code == 2


def test_an_image_is_added_shown_and_deleted(manage, tmp_path):
    (tmp_path / "k").write_bytes(b"kernel")
    add = ("image", "add", "--name", "k", "--location", str(tmp_path / "k"), "--disk_format", "aki", "--json")
    made = manage(*add).document
    assert made["status"] == "active"
    assert manage(*add).code == 4
    assert manage("image", "show", "k", "--json").document == made
    assert [row["name"] for row in manage("image", "list", "--json").document] == ["k"]
    assert manage("image", "delete", "k").code == 0
    assert manage("image", "show", "k").code == 3


def test_a_network_is_created_listed_and_deleted(manage):
    made = manage("network", "create", "private", "10.0.0.0/24", "--dns", "10.0.0.1", "--json").document
    assert (made["bridge"], made["gateway"], made["held"], made["free"]) == ("br100", "10.0.0.1", 0, 253)
    assert manage("network", "create", "other", "10.0.0.128/25").code == 4
    assert [row["label"] for row in manage("network", "list", "--json").document] == ["private"]
    assert manage("network", "delete", "private").code == 0
    assert manage("network", "delete", "private").code == 3


def test_a_network_in_use_is_not_deleted(manage, db):
    manage("network", "create", "private", "10.0.0.0/24")
    db.run(networks.claim, 1, an_instance(db), "02:16:3e:00:00:01")
    said = manage("network", "delete", "private")
    assert said.code == 4
    assert "in use" in said.err


def test_a_key_is_put_by_listed_and_forgotten(manage, tmp_path):
    (tmp_path / "k.pub").write_text(KEY + "\n")
    made = manage("--user", "anna", "keypair", "create", "mine", "--public_key", str(tmp_path / "k.pub"), "--json")
    assert made.document["fingerprint"].startswith("SHA256:")
    assert [row["user_id"] for row in manage("keypair", "list", "--json").document] == ["anna"]
    assert manage("keypair", "delete", "mine").code == 3
    assert manage("keypair", "delete", "mine", "--user", "anna").code == 0


def test_a_quota_is_set_shown_and_dropped(manage, db):
    an_instance(db)
    assert manage("quota", "set", "lab", "cores", "64").code == 0
    cores = {row["resource"]: row for row in manage("quota", "show", "lab", "--json").document}["cores"]
    assert (cores["limit"], cores["used"], cores["override"]) == (64, 1, True)
    assert manage("quota", "set", "lab", "cores", "default").code == 0
    cores = {row["resource"]: row for row in manage("quota", "show", "lab", "--json").document}["cores"]
    assert (cores["limit"], cores["override"]) == (20, False)
    assert manage("quota", "set", "lab", "chairs", "4").code == 2


def test_a_security_group_gets_rules_and_tells_the_hosts(manage, api):
    assert manage("secgroup", "create", "web").code == 0
    added = manage("secgroup", "add-rule", "web", "tcp", "80", "443", "--json").document
    assert (added["from_port"], added["to_port"], added["cidr"]) == (80, 443, "0.0.0.0/0")
    assert manage("secgroup", "add-rule", "web", "tcp", "80", "443").code == 4
    assert len(manage("secgroup", "show", "web", "--json").document["rules"]) == 1
    assert manage("secgroup", "delete-rule", str(added["id"])).code == 0
    assert api.rpc.casts == []


def test_a_server_group_is_created_and_deleted(manage):
    assert manage("servergroup", "create", "web", "anti-affinity").code == 0
    assert manage("servergroup", "list", "--json").document[0]["members"] == []
    assert manage("servergroup", "create", "db", "closeness").code == 2
    assert manage("servergroup", "delete", "web").code == 0


def test_a_volume_is_recorded_and_forgotten(manage):
    made = manage("volume", "create", "10", "--path", "/srv/v.raw", "--name", "data", "--json").document
    assert (made["location"], made["status"], made["size_gb"]) == ("file:/srv/v.raw", "available", 10)
    assert manage("volume", "show", "1", "--json").document == made
    assert manage("volume", "delete", "1").out == "volume 1 is forgotten; what is at file:/srv/v.raw stays\n"
    assert manage("volume", "show", "1").code == 3


def test_a_volume_is_made_and_goes_with_its_file(manage, tmp_path):
    made = manage("volume", "create", "1", "--json").document
    file = tmp_path / "volumes/volume-00000001"
    assert (made["location"], made["managed"], file.stat().st_size) == (f"file:{file}", True, 1024**3)
    assert manage("volume", "delete", "1", "--json").document["removed"]
    assert not file.exists()


def test_the_secret_of_a_volume_comes_from_a_file_and_is_shown_nowhere(manage, tmp_path):
    (tmp_path / "secret").write_text("hush hush\n")
    create = ("volume", "create", "1", "--connection", "iscsi://10.0.0.5/iqn.2010-10.org.openstack:x/1")
    made = manage(*create, "--login", "anna", "--secret-file", str(tmp_path / "secret"), "--json")
    assert (made.document["has_login"], "hush" in made.out) == (True, False)
    assert "hush" not in manage("volume", "list", "--json").out
    assert b"hush" not in (tmp_path / "nova.sqlite").read_bytes()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--path", "/x", "--connection", "nbd://h/e"], 2), (["--connection", "nbd://h"], 0),
        (["--connection", "ftp://h/e"], 2), (["--login", "u", "--connection", "nbd://h/e"], 2),
        (["--login", "u", "--secret-file", "/nowhere", "--connection", "nbd://h/e"], 2),
        (["--login", "u", "--secret-file", "/dev/null", "--connection", "rbd:a/b"], 2), (["--host", "elsewhere"], 2),
    ],
)  # fmt: skip
def test_a_volume_of_which_too_little_or_too_much_is_said_is_refused(manage, words, code):
    assert manage("volume", "create", "1", *words).code == code
    assert len(manage("volume", "list", "--json").document) == (code == 0)


def test_an_attached_volume_is_not_forgotten(manage, db):
    manage("volume", "create", "10", "--path", "/srv/v.raw")
    db.run(volumes.reserve_attachment, 1, an_instance(db), "/dev/vdb")
    assert manage("volume", "delete", "1").code == 4
    assert manage("volume", "list", "--json").document[0]["device"] == "/dev/vdb"


def test_services_have_faces(manage, a_host):
    said = manage("service", "list")
    assert ":-)" in said.out
    [row] = manage("service", "list", "host1", "nova-compute", "--json").document
    assert (row["alive"], row["status"]) == (True, "enabled")
    assert manage("service", "disable", "host1", "--reason", "new memory").code == 0
    assert manage("service", "list", "--json").document[0]["disabled_reason"] == "new memory"
    assert manage("service", "enable", "host2").code == 3


def test_a_service_is_forgotten_only_when_it_is_silent(manage, db, a_host):
    alive = manage("service", "delete", "host1")
    assert (alive.code, alive.err) == (4, "nova-manage: nova-compute on host1 is alive: stop it first\n")
    assert manage("service", "delete", "host1", "--project", "lab").code == 1
    db.run(services.sign_off, 1, "start-1")
    assert manage("service", "delete", "host1", "--json").document == {
        "host": "host1", "binary": "nova-compute", "freed": []
    }  # fmt: skip
    assert manage("service", "delete", "host1").code == 3


def test_a_host_shows_what_it_has_and_what_is_claimed(manage, db, a_host):
    shown = manage("host", "show", "host1", "--json").document
    assert (shown["vcpus"], shown["cpu_allocation_ratio"], shown["instances"]) == (8, 16.0, 0)
    assert "0/128" in manage("host", "list").out
    assert manage("host", "show", "host2").code == 3
    described = manage("service", "describe_resource", "host1", "--json").document
    assert (described["resource"]["memory_mb"], described["usage"]) == (16384, {})


def test_a_resource_update_asks_the_host(manage, api, a_host):
    assert manage("service", "update_resource", "host1").code == 0
    assert api.asked("update_available_resource") == (("host1",), {})
    assert manage("service", "update_resource", "host2").code == 3


def test_a_project_sees_and_changes_its_own_things_only(manage):
    manage("secgroup", "create", "web", "--project", "lab")
    assert manage("secgroup", "list", "--project", "other", "--json").document == []
    assert manage("secgroup", "show", "web", "--project", "other").code == 3
    assert manage("flavor", "create", "x", "1", "1", "1", "9", "--project", "lab").code == 1
    assert manage("flavor", "create", "x", "1", "1", "1", "9", "--project", "lab", "--admin").code == 0


def test_verify_finds_a_lost_task_and_exits_1(manage, db, a_host):
    assert manage("verify", "--json").document == []
    an_instance(db, task_state="stopping")
    said = manage("verify", "--json")
    assert said.code == 1
    assert [row["check"] for row in said.document] == ["tasks", "claims"]


def test_verify_asks_live_hosts_for_guests_without_a_record(manage, api, a_host):
    api.answers["audit_host"] = [{"name": "instance-00000009", "uuid": None, "kind": "deleted"}]
    said = manage("verify", "--hosts", "--json")
    assert said.code == 1
    assert [(row["check"], row["subject"], row["host"]) for row in said.document] == [
        ("guests", "guest instance-00000009", "host1")
    ]


def test_verify_says_which_host_could_not_be_asked(manage, api, a_host):
    api.refusal = UnreachableError("no answer")
    [row] = manage("verify", "--hosts", "--json").document
    assert (row["severity"], row["host"]) == ("warning", "host1")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_prints_a_snippet(manage, shell):
    assert "nova-manage" in manage("completion", shell).out
