"""What is said to a guest's agent, and what becomes of its answers."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json

import pytest

from tests.builders import a_guest, an_image
from virt.errors import GuestAgentError, HypervisorError
from virt.libvirt import host as lv
from virt.libvirt.agent import NETWORK_FACTS, RESET_NETWORK, Agents, administrator


class FakeAgent:
    """An agent that writes at most `most` bytes a time and counts what is open. Stands in for a domain, too."""

    def __init__(self, most=10**9):
        self.most, self.files, self.handles, self.commands = most, {}, {}, []
        self.numbers, self.failing, self.passwords, self.hook_code = itertools.count(1), {}, {}, 0

    def ask_agent(self, _spec, work, timeout_s):
        assert timeout_s > 0
        return work(self)

    def agentSetResponseTimeout(self, timeout_s, _flags):  # noqa: N802 - libvirt's name
        assert timeout_s >= 1

    def setUserPassword(self, user, password, _flags):  # noqa: N802 - libvirt's name
        self.passwords[user] = password

    def answer(self, text):
        command, arguments = (parsed := json.loads(text))["execute"], parsed["arguments"]
        self.commands.append(command)
        if command in self.failing:
            raise self.failing[command]
        return getattr(self, command.replace("-", "_"))(**{k.replace("-", "_"): v for k, v in arguments.items()})

    def guest_file_open(self, path, mode):
        assert mode == "wb"
        handle = next(self.numbers)
        self.handles[handle], self.files[path] = path, b""
        return handle

    def guest_file_write(self, handle, buf_b64):
        data = base64.b64decode(buf_b64)[: self.most]
        self.files[self.handles[handle]] += data
        return {"count": len(data), "eof": False}

    def guest_file_close(self, handle):
        del self.handles[handle]
        return {}

    def guest_exec(self, path, arg, capture_output):
        assert (path, arg, capture_output) == (RESET_NETWORK, [NETWORK_FACTS], True)
        return {"pid": 7}

    def guest_exec_status(self, pid):
        assert pid == 7
        if self.commands.count("guest-exec-status") < 3:
            return {"exited": False}
        said = {"err-data": base64.b64encode(b"no eth0\n").decode()} if self.hook_code else {}
        return {"exited": True, "exitcode": self.hook_code} | said


@pytest.fixture
def agent(monkeypatch):
    made = FakeAgent()
    monkeypatch.setattr(lv, "agent_command", lambda domain, text, _timeout: json.dumps({"return": domain.answer(text)}))
    monkeypatch.setattr("virt.libvirt.agent._POLL_S", 0.001)
    return made


@pytest.fixture
def agents(agent):
    made = Agents(lv.Host("test:///default"), "test", timeout_s=5)
    made._domains = agent
    return made


@pytest.mark.parametrize("most", [10**9, 1000])
def test_a_file_arrives_whole_however_little_is_written_at_a_time(agent, agents, most):
    agent.most, contents = most, bytes(range(256)) * 400
    agents.write_file(a_guest(), "/etc/data", contents)
    assert agent.files == {"/etc/data": contents}
    assert agent.handles == {}


def test_an_empty_file_is_a_file(agent, agents):
    agents.write_file(a_guest(), "C:\\empty", b"")
    assert (agent.files, agent.handles) == ({"C:\\empty": b""}, {})


@pytest.mark.parametrize("path", ["etc/motd", "", "C:motd", "~/x", "/a\0b"])
def test_a_path_that_is_not_absolute_is_refused_before_anything_is_asked(agent, agents, path):
    with pytest.raises(HypervisorError, match="not an absolute path"):
        agents.write_file(a_guest(), path, b"x")
    assert agent.commands == []


def test_a_file_that_cannot_be_written_is_closed(agent, agents):
    agent.failing["guest-file-write"] = HypervisorError("no space left")
    with pytest.raises(HypervisorError, match="no space left"):
        agents.write_file(a_guest(), "/x", b"x")
    assert agent.handles == {}


def test_an_agent_that_writes_nothing_is_not_asked_for_ever(agent, agents):
    agent.most = 0
    with pytest.raises(HypervisorError, match="wrote nothing"):
        agents.write_file(a_guest(), "/x", b"x")


def test_an_agent_that_falls_silent_is_not_asked_to_close(agent, agents):
    agent.failing["guest-file-write"] = GuestAgentError("silent")
    with pytest.raises(GuestAgentError, match="no guest agent answers"):
        agents.write_file(a_guest(), "/x", b"x")
    assert "guest-file-close" not in agent.commands


def test_all_that_is_asked_for_one_thing_has_one_deadline(agent, agents, monkeypatch):
    clock = itertools.count(0, 2)
    monkeypatch.setattr("virt.libvirt.agent.time.monotonic", lambda: float(next(clock)))
    with pytest.raises(GuestAgentError, match="did not finish within its time"):
        agents.write_file(a_guest(), "/x", bytes(10**6))


def test_a_reset_hands_over_the_facts_and_waits_for_the_guests_hook(agent, agents):
    spec = a_guest()
    agents.reset_network(spec)
    networks = json.loads(agent.files[NETWORK_FACTS])["networks"]
    assert [network["ip_address"] for network in networks] == [str(one.ip) for one in spec.vifs[0].addresses]
    assert agent.commands.count("guest-exec-status") == 3


def test_a_hook_that_fails_says_why(agent, agents):
    agent.hook_code = 3
    with pytest.raises(HypervisorError, match="reset-network failed in it: no eth0"):
        agents.reset_network(a_guest())


def test_facts_that_no_agent_takes_wait_on_the_config_drive(agent, agents, caplog):
    caplog.set_level("INFO", "virt.libvirt")
    agent.failing["guest-file-open"] = GuestAgentError("silent")
    agents.hand_over_network(a_guest())
    assert "when it is started next" in caplog.text


@pytest.mark.parametrize(
    ("os_type", "properties", "expected"),
    [(None, {}, "root"), ("linux", {}, "root"), ("windows", {}, "Administrator"),
     ("linux", {"os_admin_user": "debian"}, "debian")],
)  # fmt: skip
def test_the_administrator_depends_on_the_system(agent, agents, os_type, properties, expected):
    spec = a_guest(os_type=os_type, image=an_image(properties=properties))
    agents.set_password(spec, "s3cret")
    assert agent.passwords == {expected: "s3cret"}
    assert administrator(dataclasses.replace(spec, image=None, os_type=None)) == "root"
