"""Real guests in QEMU, through the driver."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path

import pytest

from virt.errors import HypervisorUnreachableError
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
    guests.wait_for(spec, "GUEST-READY")
    flood = b"yes 0123456789012345678901234567890123456789 | head -c 3000000\n"
    with talk(driver.get_ajax_console(spec), flood) as connection:
        heard = 0
        while heard < 3_000_000:
            heard += len(connection.recv(65536))
    logs = list((Path(conf.instances_path) / spec.name).glob("console.log*"))
    assert len(logs) > 1
    assert all(log.stat().st_size <= 2 * 1024**2 for log in logs)
    assert len(driver.get_console_output(spec).encode()) <= 65536
