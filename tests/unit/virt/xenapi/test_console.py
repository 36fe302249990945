"""Consoles and diagnostics, through the pool's own HTTPS."""

from __future__ import annotations

import socket

import pytest

from virt.errors import UnsupportedError


def enter(access):
    """Go through a door."""
    client = socket.create_connection((access.host, access.port), timeout=5)
    client.sendall(access.token.encode() + b"\n")
    return client


def test_a_screen_is_reached_through_a_door(driver, guest):
    with enter(driver.get_vnc_console(guest)) as screen:
        assert screen.recv(12, socket.MSG_WAITALL) == b"RFB 003.008\n"


def test_what_is_typed_reaches_the_guest_and_comes_back(driver, guest):
    with enter(driver.get_vnc_console(guest)) as screen:
        screen.recv(12, socket.MSG_WAITALL)
        screen.sendall(b"RFB 003.008\n")
        assert screen.recv(12, socket.MSG_WAITALL) == b"RFB 003.008\n"


def test_what_a_guest_prints_is_its_console_output(world, driver, guest):
    (vm,) = world.pool.find("VM", name_label=guest.name)
    world.pool.guest(vm).output = "Debian GNU/Linux\nlogin: "
    assert driver.get_console_output(guest) == "Debian GNU/Linux\nlogin: "
    assert driver.get_console_output(guest, max_bytes=7) == "login: "


def test_a_guest_that_is_off_prints_nothing(driver, guest):
    driver.power_off(guest)
    assert driver.get_console_output(guest) == ""


def test_diagnostics_are_what_the_pool_measures(driver, guest):
    found = driver.get_diagnostics(guest)
    assert found["cpu0"] == 25
    assert found["memory"] == guest.memory_mb * 1024**2
    assert {"vbd_xvda_read", "vif_0_rx"} <= set(found)


@pytest.mark.parametrize("count", ["block_stats", "interface_stats"])
def test_what_xapi_does_not_count_is_not_made_up(driver, guest, count):
    with pytest.raises(UnsupportedError, match="xapi counts nothing of"):
        getattr(driver, count)(guest.name, "0")
