"""Snapshots: of guests that are off, on libvirt's test hypervisor; and how an agent is asked and a job followed."""

from __future__ import annotations

import pytest
from lxml import etree

from tests.builders import a_guest
from virt.disk import Disks
from virt.driver import no_progress
from virt.errors import DiskError, DiskFullError, GuestAgentError, GuestStateError, HypervisorError
from virt.libvirt import snapshots
from virt.libvirt.snapshots import Snapshotter
from virt.power_state import Power

CONNECTED = "<domain><devices><channel><target state='connected'/></channel></devices></domain>"
ALONE = "<domain><devices><channel><target state='disconnected'/></channel></devices></domain>"


@pytest.fixture
def guest(world):
    spec = world.make_guest()
    world.driver.spawn(spec)
    world.driver.power_off(spec)
    return spec


def test_a_guest_that_is_off_is_copied_whole(world, guest, tmp_path):
    result = world.driver.snapshot(guest, str(tmp_path / "image"))
    assert Disks().virtual_size(tmp_path / "image", "qcow2") == 1024**3
    assert b"content" in (tmp_path / "image").read_bytes()
    assert result.disk_format == "qcow2"


@pytest.mark.parametrize("error", [DiskFullError("full"), KeyboardInterrupt()])
def test_a_copy_that_fails_leaves_nothing(world, guest, tmp_path, monkeypatch, error):
    def fail(_disks, _source, _base, path, _guard):
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(Disks, "flatten", fail)
    before = sorted(path.name for path in (world.instances / guest.name).iterdir())
    with pytest.raises(type(error)):
        world.driver.snapshot(guest, str(tmp_path / "image"))
    assert sorted(path.name for path in (world.instances / guest.name).iterdir()) == before
    assert list(tmp_path.iterdir()) == []


class Agent:
    """An agent that hangs, refuses or obeys, and what it was asked."""

    def __init__(self, **errors):
        self.errors, self.asked = errors, []

    def __getattr__(self, verb):
        def ask(_spec):
            self.asked.append(verb)
            if verb in self.errors:
                raise self.errors[verb]

        return ask


class Guest:
    """Domains with one guest, which answers with these, one after another; a callable is called when it is its turn."""

    def __init__(self, *answers, power=Power.RUNNING):
        self._answers, self._power = iter(answers), power

    def power(self, _spec):
        return self._power

    def ask(self, _spec, _work, _timeout_s=None):
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer


def quieted(agent, document=CONNECTED, power=Power.RUNNING, work=no_progress, answers=(False, False, False)):
    maker = Snapshotter(Guest(*answers, power=power), None, agent)
    with maker._quiet(a_guest(), etree.fromstring(document)):
        work("now")
    return agent.asked


def test_an_agent_freezes_and_thaws():
    assert quieted(Agent()) == ["ping", "freeze", "thaw"]


@pytest.mark.parametrize(("document", "power"), [(ALONE, Power.RUNNING), (CONNECTED, Power.PAUSED)])
def test_where_no_agent_can_answer_none_is_asked(document, power):
    assert quieted(Agent(), document, power) == []


def test_an_agent_that_hangs_is_never_told_to_freeze():
    agent = Agent(ping=GuestAgentError("hangs"))
    with pytest.raises(GuestAgentError):
        quieted(agent)
    assert agent.asked == ["ping"]


def test_an_agent_that_will_not_freeze_does_not_keep_the_snapshot_from_being_made(caplog):
    assert quieted(Agent(freeze=HypervisorError("disabled"))) == ["ping", "freeze", "thaw"]
    assert "disabled" in caplog.text


def test_an_agent_that_hangs_while_it_freezes_is_told_to_thaw():
    agent = Agent(freeze=GuestAgentError("hangs"))
    with pytest.raises(GuestAgentError):
        quieted(agent)
    assert agent.asked == ["ping", "freeze", "thaw"]


def test_whatever_goes_wrong_the_guest_is_thawed():
    agent = Agent()
    with pytest.raises(ZeroDivisionError):
        quieted(agent, work=lambda _step: 1 / 0)
    assert agent.asked[-1] == "thaw"


def test_a_guest_that_stays_frozen_is_told_of():
    agent = Agent(thaw=GuestAgentError("hangs"))
    with pytest.raises(GuestAgentError, match="may be frozen"):
        quieted(agent)
    assert agent.asked == ["ping", "freeze", "thaw", "thaw", "thaw"]


def test_a_guest_that_its_copy_starves_goes_on_is_thawed_and_the_snapshot_has_no_room():
    agent = Agent(thaw=GuestStateError("domain is not running"))
    stopped_then_no_copy_then_resumed = (True, False, agent.errors.clear)
    with pytest.raises(DiskFullError, match="No space left"):
        quieted(agent, answers=stopped_then_no_copy_then_resumed)
    assert agent.asked == ["ping", "freeze", "thaw", "thaw"]


@pytest.fixture
def follow(monkeypatch):
    monkeypatch.setattr(snapshots, "_POLL_S", 0.0)
    monkeypatch.setattr(snapshots, "_PROGRESS_S", -1.0)
    return lambda *answers, progress=no_progress: Snapshotter(Guest(*answers), None, None)._follow(a_guest(), progress)


def test_a_job_is_followed_to_its_end(follow):
    said = []
    follow({"type": 2, "disk_processed": 5 * 1024**2}, {"type": 0}, {"success": True}, progress=said.append)
    assert said == ["copying the disk: 5 MiB"]


@pytest.mark.parametrize(
    ("end", "kind", "words"),
    [
        ({"success": False, "errmsg": "No space left on device"}, DiskFullError, "No space"),
        ({"success": False, "errmsg": "Input/output error"}, DiskError, "Input/output"),
        ({}, DiskError, "lost"),
        (GuestStateError("off"), DiskError, "went off"),
    ],
)
def test_a_job_that_fails_says_why(follow, end, kind, words):
    with pytest.raises(kind, match=words):
        follow({"type": 0}, end)
