"""Snapshots of a real guest: complete by themselves, and nothing left of those that fail."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from tests.builders import an_image
from tests.integration.libvirt.inside import run_inside
from virt.errors import DiskFullError, GuestAgentError
from virt.libvirt.agent import Agents
from virt.libvirt.snapshots import Snapshotter
from virt.power_state import Power

pytestmark = pytest.mark.real


def info(path):
    out = subprocess.check_output(["qemu-img", "info", "-U", "-f", "qcow2", "--output=json", path])
    return json.loads(out)


def directory(booted):
    return Path(booted.conf.instances_path) / booted.spec.name


def is_clean(booted):
    """Nothing of a snapshot is left, and the guest runs from its own disk."""
    assert booted.driver.get_info(booted.spec.name).power is Power.RUNNING
    assert booted.count(f"'{directory(booted) / 'disk'}'") == 2
    return not list(directory(booted).glob("*snapshot*"))


def ext4_features(snapshot, folder):
    """What the file system on a snapshot says of itself."""
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", snapshot, folder / "raw"], check=True)
    return subprocess.check_output(["dumpe2fs", "-h", folder / "raw"], text=True, stderr=subprocess.DEVNULL)


def wait_for_agent(booted):
    booted.guests.wait_for(booted.spec, "AGENT pid=")


@pytest.fixture
def image_path(booted):
    """Where the host's images are."""
    path = Path(booted.conf.images_path) / "of-a-running-guest"
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def untouched(monkeypatch):
    """The agent in the guest is not asked for anything."""
    monkeypatch.setattr(Agents, "freeze", lambda *_args: None)
    monkeypatch.setattr(Agents, "thaw", lambda *_args: None)


def test_a_guest_boots_from_a_snapshot_of_a_running_one(booted, image_path):
    run_inside(booted.driver, booted.spec, "echo kept > /etc/greeting; sync")
    result = booted.driver.snapshot(booted.spec, str(image_path))
    data = Path(result.path).read_bytes()
    assert (result.sha256, result.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert "backing-filename" not in info(result.path)
    assert is_clean(booted)
    image = an_image(id=77, name="snapshot", location=result.path, disk_format="qcow2", sha256=result.sha256)
    other = booted.guests.with_kernel(image=image)
    booted.driver.spawn(other)
    booted.guests.wait_for(other, "GUEST-READY")
    assert "BOOTS 2" in booted.guests.console(other)
    assert run_inside(booted.driver, other, "cat /etc/greeting") == "kept"
    booted.driver.destroy(other)


def test_an_agent_completes_the_file_system_and_lets_it_go_on(booted, tmp_path):
    wait_for_agent(booted)
    snapshot = booted.driver.snapshot(booted.spec, str(tmp_path / "image")).path
    assert "needs_recovery" not in ext4_features(snapshot, tmp_path)
    assert run_inside(booted.driver, booted.spec, "echo goes-on > /var/x; sync; cat /var/x") == "goes-on"


@pytest.mark.usefixtures("untouched")
def test_without_an_agent_the_snapshot_is_as_after_a_crash(booted, tmp_path):
    snapshot = booted.driver.snapshot(booted.spec, str(tmp_path / "image")).path
    assert "needs_recovery" in ext4_features(snapshot, tmp_path)


def test_an_agent_that_hangs_fails_the_snapshot_and_the_guest_runs(booted, tmp_path):
    wait_for_agent(booted)
    run_inside(booted.driver, booted.spec, "kill -STOP $(cat /run/qemu-ga.pid)")
    try:
        with pytest.raises(GuestAgentError):
            booted.driver.snapshot(booted.spec, str(tmp_path / "image"))
        assert is_clean(booted)
        assert list(tmp_path.iterdir()) == []
    finally:
        run_inside(booted.driver, booted.spec, "kill -CONT $(cat /run/qemu-ga.pid)")
    assert run_inside(booted.driver, booted.spec, "echo still > /var/y; sync; cat /var/y") == "still"


@contextlib.contextmanager
def small_place(run, folder):
    """A file system of one MiB in place of a folder."""
    run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
    try:
        yield
    finally:
        run("umount", str(folder))


def local(*command):
    subprocess.run(command, check=True)


@pytest.mark.parametrize("where", ["copying", "handing over"])
def test_a_host_without_room_is_told_and_nothing_is_left(booted, tmp_path, where):
    run, folder = (booted.host.run, directory(booted)) if where == "copying" else (local, tmp_path)
    with small_place(run, folder):
        with pytest.raises(DiskFullError):
            booted.driver.snapshot(booted.spec, str(tmp_path / "image"))
        assert list(tmp_path.iterdir()) == []
    assert is_clean(booted)


def test_a_copy_that_a_crashed_daemon_left_is_ended_first(booted, tmp_path, monkeypatch):
    def crash(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(Snapshotter, "_follow", crash)
    monkeypatch.setattr(Snapshotter, "_give_up", lambda *_args: None)
    with pytest.raises(KeyboardInterrupt):
        booted.driver.snapshot(booted.spec, str(tmp_path / "first"))
    (directory(booted) / "disk.snapshot").write_bytes(b"half a copy")
    monkeypatch.undo()
    assert "backing-filename" not in info(booted.driver.snapshot(booted.spec, str(tmp_path / "second")).path)
    assert is_clean(booted)


@pytest.mark.parametrize("state", ["pause", "suspend", "power_off"])
def test_a_guest_that_does_not_run_keeps_its_state(booted, tmp_path, state):
    getattr(booted.driver, state)(booted.spec)
    before = booted.driver.get_info(booted.spec.name).power
    snapshot = booted.driver.snapshot(booted.spec, str(tmp_path / "image"))
    assert booted.driver.get_info(booted.spec.name).power is before
    assert "backing-filename" not in info(snapshot.path)
    back = {"pause": "unpause", "suspend": "resume", "power_off": "power_on"}[state]
    getattr(booted.driver, back)(booted.spec)


def test_what_a_guest_wrote_to_its_disk_is_content_and_never_a_header(booted, tmp_path):
    spec, bait = booted.guests.with_kernel(), tmp_path / "bait"
    bait.write_bytes(b"a secret of the host".ljust(65536, b"\0"))
    evil = tmp_path / "evil"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", bait, evil], check=True)
    booted.driver.spawn(spec)
    booted.driver.power_off(spec)
    disk = directory(booted).with_name(spec.name) / "disk"
    subprocess.run(["qemu-img", "dd", "-f", "raw", "-O", "qcow2", "-n", f"if={evil}", f"of={disk}"], check=False)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", f"write -s {evil} 0 196608", disk], check=True, capture_output=True)
    result = booted.driver.snapshot(spec, str(tmp_path / "image"))
    assert "backing-filename" not in info(result.path)
    assert b"a secret of the host" not in Path(result.path).read_bytes()
    booted.driver.destroy(dataclasses.replace(spec))
