"""Volumes of a real guest: files, devices, NBD and iSCSI servers, plugged in and out. It boots once for all tests."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import subprocess
import time

import pytest

from tests.builders import a_volume
from tests.integration.libvirt.inside import disk_with, first_sector, read_marker, write_marker
from tests.integration.libvirt.volume_servers import iscsi, nbd
from tests.integration.processes import free_port, wait_until
from virt.errors import VirtError, VolumeError
from virt.libvirt.driver import LibvirtDriver
from virt.power_state import Power

pytestmark = pytest.mark.real

MIB = 1024**2
LOGIN = ("cinder", "s3cret12chars")
CHAP = f"CHAP {LOGIN[0]} {LOGIN[1]}"


@pytest.fixture
def disk(tmp_path):
    """A file of 16 MiB of zeros that a volume is in."""
    with (tmp_path / "volume").open("wb") as file:
        file.truncate(16 * MIB)
    return tmp_path / "volume"


def at(protocol, source, auth=None, **changes):
    connection = {"protocol": protocol, "source": str(source)} | ({"auth": auth} if auth else {})
    return a_volume(**({"connection": connection} | changes))


def keeps_what_is_written(booted, volume, disk):
    """Plug a volume in, write to it inside and see that the host finds it."""
    booted.driver.attach_volume(booted.spec, volume)
    booted.guests.wait_for(booted.spec, f":32768:{volume.serial}")
    write_marker(booted.driver, booted.spec, volume.serial, f"from-{volume.serial}")
    assert first_sector(disk) == f"from-{volume.serial}\n".encode()


def is_gone(booted, volume):
    booted.driver.detach_volume(booted.spec, volume)
    return booted.count(volume.serial) == 0 and disk_with(booted.driver, booted.spec, volume.serial) == ""


def secrets(booted):
    return booted.host.run("virsh", "secret-list").count("micronova")


def test_a_volume_in_a_file_comes_and_goes_and_comes_again(booted, disk):
    volume = at("file", disk)
    keeps_what_is_written(booted, volume, disk)
    assert is_gone(booted, volume)
    again = dataclasses.replace(volume, attachment_id=volume.attachment_id + 10**6)
    booted.driver.attach_volume(booted.spec, again)
    booted.guests.wait_for(booted.spec, f":32768:{volume.serial}", times=2)
    assert read_marker(booted.driver, booted.spec, volume.serial) == f"from-{volume.serial}"
    booted.driver.detach_volume(booted.spec, volume)
    assert booted.count(volume.serial) == 2
    assert is_gone(booted, again)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_volume_on_an_nbd_server_comes_and_goes(booted, disk, tmp_path, kind):
    with nbd(disk, tmp_path, kind) as (source, _server):
        volume = at("nbd", source)
        keeps_what_is_written(booted, volume, disk)
        assert is_gone(booted, volume)


def test_a_volume_on_an_open_iscsi_server_comes_and_goes(booted, disk):
    with iscsi(disk) as target:
        volume = at("iscsi", target.source)
        keeps_what_is_written(booted, volume, disk)
        assert is_gone(booted, volume)


def test_a_volume_behind_a_login_is_there_after_a_reboot(booted, disk):
    with iscsi(disk, LOGIN) as target:
        volume = at("iscsi", target.source, CHAP)
        keeps_what_is_written(booted, volume, disk)
        booted.boots_again(lambda: booted.driver.reboot(dataclasses.replace(booted.spec, volumes=(volume,))))
        assert read_marker(booted.driver, booted.spec, volume.serial) == f"from-{volume.serial}"
        assert secrets(booted) == 1
        assert is_gone(booted, volume)
    assert secrets(booted) == 0


def test_a_guest_with_a_login_goes_on_from_memory_after_libvirt_forgot_it(booted, disk):
    with iscsi(disk, LOGIN) as target:
        volume = at("iscsi", target.source, CHAP)
        keeps_what_is_written(booted, volume, disk)
        booted.driver.suspend(booted.spec)
        booted.host.restart_libvirtd()
        assert secrets(booted) == 0
        booted.driver.resume(dataclasses.replace(booted.spec, volumes=(volume,)))
        assert read_marker(booted.driver, booted.spec, volume.serial) == f"from-{volume.serial}"
        assert is_gone(booted, volume)


def test_a_login_is_seen_nowhere_and_a_wrong_one_leaves_nothing(booted, disk, caplog):
    caplog.set_level("DEBUG")
    with iscsi(disk, LOGIN) as target:
        wrong, right = at("iscsi", target.source, "CHAP cinder another-secret"), at("iscsi", target.source, CHAP)
        with pytest.raises(VolumeError, match=f"volume {wrong.volume_id}: .*iSCSI"):
            booted.driver.attach_volume(booted.spec, wrong)
        assert (booted.count(wrong.serial), secrets(booted)) == (0, 0)
        booted.driver.attach_volume(booted.spec, right)
        seen = booted.definitions("--security-info") + booted.host.run("virsh", "secret-list")
        booted.driver.detach_volume(booted.spec, right)
    seen += booted.host.run("ps", "axww") + caplog.text
    seen += "".join(path.read_text(errors="replace") for path in booted.host.folder.glob("log/**/*.log"))
    assert "qemu-system-x86_64" in seen
    assert [secret in seen for secret in (LOGIN[1], "another-secret")] == [False, False]


def test_what_one_guest_wrote_another_reads_and_answers_and_the_first_reads_the_answer(booted, disk):
    volume, other = at("file", disk), booted.guests.with_kernel()
    keeps_what_is_written(booted, volume, disk)
    assert is_gone(booted, volume)
    booted.driver.spawn(dataclasses.replace(other, volumes=(volume,)))
    booted.guests.wait_for(other, "GUEST-READY")
    assert read_marker(booted.driver, other, volume.serial) == f"from-{volume.serial}"
    write_marker(booted.driver, other, volume.serial, "answered")
    booted.driver.detach_volume(other, volume)
    booted.driver.attach_volume(booted.spec, volume)
    wait_until(lambda: disk_with(booted.driver, booted.spec, volume.serial), 10, "the volume is back")
    assert read_marker(booted.driver, booted.spec, volume.serial) == "answered"
    assert is_gone(booted, volume)
    booted.driver.destroy(other)


def test_a_guest_that_is_deleted_takes_its_secrets_along(booted, disk):
    spec = booted.guests.with_kernel()
    with iscsi(disk, LOGIN) as target:
        booted.driver.spawn(dataclasses.replace(spec, volumes=(at("iscsi", target.source, CHAP),)))
        assert secrets(booted) == 1
        booted.driver.destroy(spec)
    assert secrets(booted) == 0


@contextlib.contextmanager
def mute_server():
    """Takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"//127.0.0.1:{server.getsockname()[1]}/export"


def refused(booted, volume, reason):
    with pytest.raises(VolumeError, match=f"volume {volume.volume_id}: .*{reason}"):
        booted.driver.attach_volume(booted.spec, volume)
    assert (booted.count(volume.serial), secrets(booted)) == (0, 0)


def test_a_server_that_is_dead_or_mute_is_told_at_once_and_leaves_nothing(booted):
    dead, started = free_port(), time.monotonic()
    with mute_server() as mute:
        refused(booted, at("nbd", f"//127.0.0.1:{dead}/export"), "refused")
        refused(booted, at("iscsi", f"127.0.0.1:{dead},1 iqn.2010-10.org:x 1", CHAP), "refused")
        refused(booted, at("nbd", mute), "timed out")
    refused(booted, at("file", "/nowhere"), "No such file")
    assert time.monotonic() - started < 15


def test_what_a_server_does_not_have_is_refused_in_its_words(booted, disk, tmp_path):
    with nbd(disk, tmp_path, "tcp") as (source, _server):
        refused(booted, at("nbd", source.replace("/export", "/another")), "export not available")
    with iscsi(disk) as target:
        refused(booted, at("iscsi", target.source.replace("volume-00000001", "another")), "iSCSI")


def test_orders_that_make_no_sense_are_refused(booted, disk):
    for changes in ({"device": "/dev/tape"}, {"serial": "much too long for a virtio disk"}, {"device": "/dev/vda"}):
        with pytest.raises(VirtError):
            booted.driver.attach_volume(booted.spec, at("file", disk, **changes))


def test_a_reboot_whose_volume_is_gone_stops_nothing(booted, disk):
    with pytest.raises(VolumeError, match="No such file"):
        booted.driver.reboot(dataclasses.replace(booted.spec, volumes=(at("file", disk.with_name("gone")),)))
    assert booted.driver.get_info(booted.spec.name).power is Power.RUNNING


def test_a_paused_guest_keeps_its_volume(booted, disk):
    volume = at("file", disk)
    booted.driver.attach_volume(booted.spec, volume)
    booted.driver.pause(booted.spec)
    with pytest.raises(VolumeError, match="paused"):
        booted.driver.detach_volume(booted.spec, volume)
    assert booted.count(volume.serial) == 2
    booted.driver.unpause(booted.spec)
    assert is_gone(booted, volume)


def test_a_volume_is_there_after_stop_and_start_unless_it_was_taken_meanwhile(booted, disk, tmp_path):
    stays, goes = at("file", disk, device="/dev/vdc"), at("file", tmp_path / "other")
    (tmp_path / "other").write_bytes(bytes(MIB))
    for volume in (stays, goes):
        booted.driver.attach_volume(booted.spec, volume)
    booted.driver.power_off(booted.spec)
    booted.driver.detach_volume(booted.spec, goes)
    assert (booted.count(stays.serial), booted.count(goes.serial)) == (2, 0)
    booted.boots_again(lambda: booted.driver.power_on(dataclasses.replace(booted.spec, volumes=(stays,))))
    assert disk_with(booted.driver, booted.spec, stays.serial) != ""
    assert is_gone(booted, stays)


def test_a_guest_that_is_deaf_keeps_the_volume_until_it_hears(booted, disk):
    volume = at("file", disk)
    booted.conf.set_override("device_unplug_timeout", 1.0)
    impatient = LibvirtDriver.from_conf(booted.conf)

    def ask_too_early():
        booted.driver.reboot(booted.spec)
        booted.driver.attach_volume(booted.spec, volume)
        with pytest.raises(VolumeError, match="did not let go of it within 1 s"):
            impatient.detach_volume(booted.spec, volume)
        assert booted.count(volume.serial) == 2

    booted.boots_again(ask_too_early)
    assert is_gone(booted, volume)


def test_a_volume_of_one_guest_is_refused_to_another_though_it_is_off(booted, disk):
    owner, volume, same_file = booted.guests.with_kernel(), at("file", disk), at("file", disk)
    booted.driver.spawn(dataclasses.replace(owner, volumes=(volume,)))
    booted.driver.power_off(owner)
    reason = f"guest {owner.name} has it already"
    refused(booted, dataclasses.replace(volume, attachment_id=10**6), reason)
    refused(booted, same_file, reason)
    third = booted.guests.with_kernel()
    with pytest.raises(VolumeError, match=reason):
        booted.driver.spawn(dataclasses.replace(third, volumes=(same_file,)))
    booted.driver.destroy(owner)


def test_an_attachment_that_a_crash_left_half_done_is_completed(booted, disk):
    volume = at("file", disk)
    booted.driver.attach_volume(booted.spec, volume)
    booted.host.run("virsh", "detach-disk", booted.spec.name, "vdb", "--config")
    assert booted.count(volume.serial) == 1
    booted.driver.attach_volume(booted.spec, volume)
    assert booted.count(volume.serial) == 2
    assert is_gone(booted, volume)


def test_a_q35_guest_takes_eight_volumes_while_it_runs(booted, tmp_path):
    plain = booted.guests.with_kernel()
    spec = dataclasses.replace(plain, image=dataclasses.replace(plain.image, properties={"hw_machine_type": "q35"}))
    booted.driver.spawn(spec)
    for letter in "bcdefghi":
        (tmp_path / letter).write_bytes(bytes(MIB))
        booted.driver.attach_volume(spec, at("file", tmp_path / letter, device=f"/dev/vd{letter}"))
    assert booted.host.run("virsh", "domblklist", spec.name).count(str(tmp_path)) == 8
    booted.driver.destroy(spec)


@pytest.fixture
def device(disk):
    """A block device over a file."""
    made = subprocess.run(["losetup", "-f", "--show", disk], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"this kernel has no loop devices: {made.stderr.strip()}")
    yield made.stdout.strip()
    subprocess.run(["losetup", "-d", made.stdout.strip()], check=True)


def test_a_volume_on_a_device_comes_and_goes(booted, device, disk):
    volume = at("block", device)
    keeps_what_is_written(booted, volume, disk)
    assert is_gone(booted, volume)
