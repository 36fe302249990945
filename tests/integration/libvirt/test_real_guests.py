"""Real guests in QEMU, through the driver."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.libvirt.inside import run_inside
from tests.integration.processes import wait_until
from virt.errors import DriverTimeoutError, HypervisorError, HypervisorUnreachableError
from virt.power_state import Power


def power(driver, spec):
    return driver.get_info(spec.name).power


def qemu_pid(host, spec):
    return host.run("cat", f"/run/libvirt/qemu/{spec.name}.pid").strip()


def test_a_guest_with_a_kernel_boots_and_obeys(driver, guests):
    spec = guests.with_kernel(ephemeral_gb=1, swap_mb=16)
    driver.spawn(spec)
    guests.wait_for(spec, "GUEST-READY")
    console, serial = guests.console(spec), spec.uuid.replace("-", "")[:12]
    assert "ROOT /dev/vda" in console
    assert f"vda:2097152:{serial}-root vdb:2097152:{serial}-local vdc:32768:{serial}-swap" in console
    driver.pause(spec)
    assert power(driver, spec) is Power.PAUSED
    driver.unpause(spec)
    driver.suspend(spec)
    assert [fact.power for fact in driver.list_guests()] == [Power.SUSPENDED]
    driver.resume(spec)
    driver.power_off(spec, timeout_s=30)
    assert power(driver, spec) is Power.SHUTOFF
    assert console.count("GUEST-READY") == 1
    driver.power_on(spec)
    guests.wait_for(spec, "GUEST-READY", times=2)
    assert "BOOTS 2" in guests.console(spec)


def test_a_guest_boots_from_its_disk_and_restarts_when_asked(driver, guests, conf):
    spec = guests.with_disk(root_gb=1)
    driver.spawn(spec)
    guests.wait_for(spec, "GUEST-READY")
    started = time.monotonic()
    driver.reboot(spec, hard=False, timeout_s=30)
    assert time.monotonic() - started < 25, "the guest was not asked, or did not obey"
    guests.wait_for(spec, "GUEST-READY", times=2)
    disk = Path(conf.instances_path) / spec.name / "disk"
    info = json.loads(subprocess.check_output(["qemu-img", "info", "-U", "--output=json", disk]))
    assert (info["virtual-size"], info["backing-filename-format"]) == (1024**3, "qcow2")
    driver.destroy(spec)
    assert not disk.parent.exists()
    assert driver.list_guests() == []


def test_a_guest_that_never_stops_talking_fills_no_disk(driver, guests, conf):
    spec = guests.with_kernel()
    driver.spawn(spec)
    guests.wait_for(spec, "GUEST-READY")
    run_inside(driver, spec, "head -c 2200000 /dev/zero | tr '\\0' x")
    logs = {path.name: path.stat().st_size for path in (Path(conf.instances_path) / spec.name).glob("console.log*")}
    assert set(logs) == {"console.log", "console.log.0"}
    assert logs["console.log"] < logs["console.log.0"] <= 2 * 1024**2
    run_inside(driver, spec, "echo the newest")
    assert "the newest" in driver.get_console_output(spec, 4096)


def test_a_restart_of_libvirtd_touches_no_guest_and_the_driver_recovers(driver, guests, libvirt_host):
    spec = guests.with_kernel()
    driver.spawn(spec)
    guests.wait_for(spec, "GUEST-READY")
    pid = qemu_pid(libvirt_host, spec)
    libvirt_host.stop_libvirtd()
    for ask in (driver.list_guests, lambda: driver.get_info(spec.name), lambda: driver.destroy(spec)):
        with pytest.raises(HypervisorUnreachableError):
            ask()
    libvirt_host.start_libvirtd()
    started = time.monotonic()
    while True:
        try:
            assert power(driver, spec) is Power.RUNNING
            break
        except HypervisorUnreachableError:
            assert time.monotonic() - started < 10
            time.sleep(0.1)
    assert qemu_pid(libvirt_host, spec) == pid
    driver.pause(spec)
    assert power(driver, spec) is Power.PAUSED


def test_the_type_of_guests_is_found_out_by_trying(driver, guests, libvirt_host):
    from virt.libvirt.guest_type import best_type

    spec = guests.with_kernel()
    driver.spawn(spec)
    assert f"<domain type='{best_type()}'" in libvirt_host.run("virsh", "dumpxml", spec.name)
    assert driver.host_resources().vcpus_used == 1


def talk(access, said=b""):
    """Open a console's door and say something."""
    connection = socket.create_connection((access.host, access.port), timeout=10)
    connection.sendall(access.token.encode() + b"\n" + said)
    return connection


def read_until(connection, marker):
    heard = b""
    while marker not in heard:
        chunk = connection.recv(4096)
        assert chunk, heard
        heard += chunk
    return heard


def test_the_consoles_of_a_guest_open_once_and_to_the_token_alone(driver, guests):
    spec = guests.with_kernel()
    driver.spawn(spec)
    guests.wait_for(spec, "GUEST-READY")
    assert "GUEST-READY" in driver.get_console_output(spec)
    serial = driver.get_ajax_console(spec)
    with talk(serial, b"echo $((6*7))-by-hand\n") as connection:
        read_until(connection, b"42-by-hand")
    with pytest.raises(OSError, match="refused"):
        talk(serial)
    with talk(driver.get_vnc_console(spec)) as connection:
        assert read_until(connection, b"\n").startswith(b"RFB 003.")
    screen = driver.get_vnc_console(spec)
    with socket.create_connection((screen.host, screen.port), timeout=10) as intruder:
        intruder.sendall(b"guess\n")
        assert intruder.recv(100) == b""


def test_the_counters_of_a_real_guest_count(driver, guests):
    spec = guests.with_kernel()
    driver.spawn(spec)
    guests.wait_for(spec, "GUEST-READY")
    assert driver.list_disks(spec.name) == ["vda"]
    assert driver.block_stats(spec.name, "vda").read_bytes > 0
    assert driver.get_diagnostics(spec)["cpu.time"] > 0


def test_what_a_guest_does_not_stop_printing_does_not_fill_the_host(driver, guests, conf):
    spec = guests.with_kernel()
    driver.spawn(spec)
    driver.power_off(spec)
    log = Path(conf.instances_path) / spec.name / "console.log"
    with log.open("a") as file:
        file.write("x" * (2 * 1024**2 - 200 - log.stat().st_size))
    driver.power_on(spec)
    guests.wait_for(spec, "GUEST-READY")
    assert log.with_name("console.log.0").stat().st_size <= 2 * 1024**2
    assert log.stat().st_size < 1024**2
    said = driver.get_console_output(spec)
    assert len(said.encode()) <= 65536
    assert "xxxx" in said
    assert "GUEST-READY" in said


@pytest.fixture
def _patience(conf):
    for option in ("libvirt_call_timeout", "libvirt_connect_timeout"):
        conf.set_override(option, 1.5)


def answers(driver):
    with contextlib.suppress(DriverTimeoutError, HypervisorUnreachableError):
        return driver.list_guests() == []
    return False


@pytest.mark.usefixtures("_patience")
def test_a_libvirtd_that_hangs_is_no_empty_host_and_is_found_again(driver, libvirt_host):
    pid = libvirt_host.run("cat", "/run/libvirt/libvirtd.pid").strip()
    libvirt_host.run("kill", "-STOP", pid)
    try:
        for ask in (driver.list_guests, driver.host_resources, driver.list_guests):
            started = time.monotonic()
            with pytest.raises((DriverTimeoutError, HypervisorUnreachableError)):
                ask()
            assert time.monotonic() - started < 4
    finally:
        libvirt_host.run("kill", "-CONT", pid)
    wait_until(lambda: answers(driver), 3, "libvirtd answers again")


@pytest.mark.usefixtures("_patience")
def test_a_guest_whose_qemu_hangs_delays_no_other_and_can_be_deleted(driver, guests, libvirt_host):
    hung, well = guests.with_kernel(), guests.with_kernel()
    driver.spawn(hung)
    driver.spawn(well)
    libvirt_host.run("kill", "-STOP", qemu_pid(libvirt_host, hung))
    for _ in range(3):
        with pytest.raises(DriverTimeoutError):
            driver.block_stats(hung.name, "vda")
    started = time.monotonic()
    driver.pause(well)
    driver.unpause(well)
    assert driver.block_stats(well.name, "vda").errors == 0
    assert {fact.power for fact in driver.list_guests()} == {Power.RUNNING}
    assert driver.host_resources().vcpus > 0
    assert time.monotonic() - started < 2
    driver.reboot(hung)
    assert power(driver, hung) is Power.RUNNING
    libvirt_host.run("kill", "-STOP", qemu_pid(libvirt_host, hung))
    with pytest.raises(DriverTimeoutError):
        driver.block_stats(hung.name, "vda")
    driver.destroy(hung)
    assert [fact.name for fact in driver.list_guests()] == [well.name]


def test_a_guest_that_qemu_cannot_start_leaves_nothing(driver, guests, conf):
    spec = guests.with_kernel(memory_mb=64 * 1024**2)
    with pytest.raises(HypervisorError, match=spec.name):
        driver.spawn(spec)
    assert driver.list_guests() == []
    assert not (Path(conf.instances_path) / spec.name).exists()
