import pytest

from compute.cli import vm_orders
from compute.errors import ComputeError, InstanceBusyError, InstanceNotFoundError, UnreachableError
from tests.fakes.api import Accepted

PLAIN = [verb.name for verb in vm_orders.VERBS if verb.name not in {"reboot", "snapshot", "resize", "live_migration"}]


@pytest.mark.parametrize("verb", PLAIN)
def test_a_plain_order_is_the_api_call_of_its_name(manage, api, verb):
    said = manage("vm", verb, "web")
    assert (said.code, said.err) == (0, "")
    assert said.out == f"instance 7: {verb} accepted (action 17)\n"
    assert api.asked(verb) == (("web",), {})


@pytest.mark.parametrize(
    ("argv", "method", "called"),
    [
        (["vm", "reboot", "web", "--soft"], "reboot", (("web",), {"soft": True})),
        (["vm", "snapshot", "web", "snap"], "snapshot", (("web", "snap"), {})),
        (["vm", "resize", "web", "m1.large"], "resize", (("web", "m1.large"), {})),
        (["vm", "live_migration", "web", "host2"], "live_migration", (("web", "host2"), {})),
        (["volume", "attach", "3", "web", "/dev/vdb"], "attach_volume", (("web", 3, "/dev/vdb"), {})),
        (["volume", "detach", "3"], "detach_volume", ((3,), {})),
    ],
)
def test_an_order_with_arguments_passes_them_on(manage, api, argv, method, called):
    assert manage(*argv).code == 0
    assert api.asked(method) == called


def test_an_order_as_json_is_one_document(manage, api):
    said = manage("vm", "stop", "web", "--json")
    assert said.document == {
        "instance_id": 7,
        "action_id": 17,
        "verb": "stop",
        "rang": True,
        "state": "requested",
        "error": None,
    }


def test_an_order_nobody_could_be_told_of_is_accepted_with_a_warning(manage, api):
    api.rang = False
    said = manage("vm", "stop", "web")
    assert said.code == 0
    assert "warning: instance 7: the order is written" in said.err


def test_waiting_says_that_it_is_done(manage, api):
    said = manage("vm", "stop", "web", "--wait", "--timeout", "5")
    assert (said.code, said.out) == (0, "instance 7: stop done (action 17)\n")
    assert 4 < api.asked("wait")[1]["timeout_s"] <= 5


def test_waiting_for_an_order_that_fails_exits_1_with_the_fault(manage, api):
    api.faults[17] = InstanceBusyError("the hypervisor refused")
    said = manage("vm", "stop", "web", "--wait", "--json")
    assert said.code == 1
    assert said.err == "nova-manage: instance 7: stop: the hypervisor refused\n"
    assert said.document["state"] == "failed"


def test_waiting_in_vain_exits_1_and_says_that_it_goes_on(manage, api):
    api.faults[17] = TimeoutError()
    said = manage("vm", "stop", "web", "--wait", "--timeout", "1")
    assert said.code == 1
    assert "not done after 1 s; it goes on" in said.err


def test_booting_several_waits_for_all_and_reports_each(manage, api):
    api.faults[12] = ComputeError("no room")
    said = manage("vm", "boot", "--name", "web", "--image", "tiny", "--count", "3", "--wait", "--json")
    assert said.code == 1
    assert [one["state"] for one in said.document["instances"]] == ["done", "failed", "done"]
    assert said.err == "nova-manage: instance 2: boot: no room\n"


def test_booting_passes_everything_on(manage, api, tmp_path):
    (tmp_path / "data").write_bytes(b"#cloud-config\n")
    manage(
        *("vm", "boot", "--name", "web", "--image", "tiny", "--network", "n", "--secgroup", "a", "--secgroup", "b"),
        *("--key", "k", "--user-data", str(tmp_path / "data"), "--file", f"/etc/motd={tmp_path}/data"),
        *("--meta", "role=db", "--host", "host1", "--group", "g"),
    )
    asked = api.asked("create")[1]
    assert asked["security_groups"] == ("a", "b")
    assert asked["user_data"] == b"#cloud-config\n"
    assert asked["injected_files"] == [("/etc/motd", b"#cloud-config\n")]
    assert (asked["metadata"], asked["host"], asked["server_group"]) == ({"role": "db"}, "host1", "g")
    assert asked["instance_type"] == "m1.small"


@pytest.mark.parametrize(
    "extra",
    [
        ["--count", "0"],
        ["--count", "many"],
        ["--count", "1001"],
        ["--meta", "novalue"],
        ["--file", "nosource"],
        ["--file", "/etc/x=/does/not/exist"],
        ["--user-data", "/does/not/exist"],
        ["--host", "h", "--availability_zone", "z"],
        ["--name", "two\nlines"],
        ["--name", "x" * 256],
    ],
)
def test_a_boot_that_makes_no_sense_exits_2_and_orders_nothing(manage, api, extra):
    said = manage("vm", "boot", "--name", "web", "--image", "tiny", *extra)
    assert said.code == 2
    assert api.calls == []


def test_user_data_of_10_mb_exits_2(manage, api, tmp_path):
    with (tmp_path / "data").open("wb") as file:
        file.truncate(10_000_000)
    said = manage("vm", "boot", "--name", "web", "--image", "tiny", "--user-data", str(tmp_path / "data"))
    assert said.code == 2
    assert "is larger than 65535 bytes" in said.err


@pytest.mark.parametrize(
    ("error", "code"),
    [(InstanceNotFoundError("no web"), 3), (InstanceBusyError("busy"), 4), (UnreachableError("away"), 5)],
)
def test_a_refused_order_exits_with_the_errors_code(manage, api, error, code):
    api.refusal = error
    said = manage("vm", "stop", "web", "--json")
    assert (said.code, said.out, said.err) == (code, "", f"nova-manage: {error}\n")


def test_a_new_password_is_made_up_and_shown_once(manage, api):
    api.answers["set_admin_password"] = Accepted(7, 17, password="xyzzy")
    assert manage("vm", "set_password", "web", "--json").document["password"] == "xyzzy"
    assert manage("vm", "set_password", "web").out.splitlines()[1] == "password: xyzzy"


def test_a_password_comes_from_a_file_and_is_never_shown(manage, api, tmp_path):
    (tmp_path / "p").write_text("s3cret!\nrest\n")
    said = manage("vm", "set_password", "web", "--password-file", str(tmp_path / "p"), "--json")
    assert api.asked("set_admin_password") == (("web", "s3cret!"), {})
    assert "s3cret!" not in said.out + said.err


def test_a_file_goes_into_the_guest(manage, api, tmp_path):
    (tmp_path / "f").write_bytes(b"\0\xff")
    assert manage("vm", "inject_file", "web", f"/root/f={tmp_path}/f").code == 0
    assert api.asked("inject_file") == (("web", "/root/f", b"\0\xff"), {})


def test_a_console_is_shown_as_it_is_to_a_pipe(manage, api):
    api.answers["get_console_output"] = "\x1b[1mlogin:\nok"
    assert manage("vm", "console_log", "web").out == "\x1b[1mlogin:\nok\n"
    assert manage("vm", "console_log", "web", "--json").document == {"output": "\x1b[1mlogin:\nok"}


@pytest.mark.parametrize(("verb", "method"), [("vnc_console", "get_vnc_console"), ("diagnostics", "get_diagnostics")])
def test_a_call_shows_what_it_answers(manage, api, verb, method):
    api.answers[method] = {"url": "http://x/?token=t"}
    assert manage("vm", verb, "web", "--json").document == {"url": "http://x/?token=t"}
