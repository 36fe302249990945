"""Volumes, interfaces, snapshots, consoles, agents, filters, counters."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest

from tests.builders import a_group, a_rule
from tests.conformance.harness import needs, needs_helper, needs_method, unable_methods
from virt.driver import (
    AttachesNics,
    AttachesVolumes,
    BootsFromVolumes,
    FiltersTraffic,
    HasConsole,
    InjectsGuest,
    ReportsStats,
    Snapshots,
)
from virt.errors import GuestNotFoundError, GuestStateError, UnsupportedError, VolumeError
from virt.power_state import Power


class CancelledByTestError(Exception):
    """What a progress callback raises to cancel."""


def test_a_volume_is_attached_to_a_running_guest(driver, world, guest):
    needs(driver, AttachesVolumes).attach_volume(guest, world.make_volume())
    assert driver.get_info(guest.name).power is Power.RUNNING


def test_a_volume_is_attached_to_a_guest_that_is_off(driver, world, guest):
    driver.power_off(guest)
    needs(driver, AttachesVolumes).attach_volume(guest, world.make_volume())
    assert driver.get_info(guest.name).power is Power.SHUTOFF


def test_attaching_twice_succeeds(driver, world, guest):
    volume = world.make_volume()
    needs(driver, AttachesVolumes).attach_volume(guest, volume)
    driver.attach_volume(guest, volume)


def test_a_device_takes_one_volume(driver, world, guest):
    needs(driver, AttachesVolumes).attach_volume(guest, world.make_volume(device="/dev/vdb"))
    with pytest.raises(VolumeError):
        driver.attach_volume(guest, world.make_volume(device="/dev/vdb"))


def test_two_volumes_fit_two_devices(driver, world, guest):
    needs(driver, AttachesVolumes).attach_volume(guest, world.make_volume(device="/dev/vdb"))
    driver.attach_volume(guest, world.make_volume(device="/dev/vdc"))


def test_a_detached_volume_frees_its_device(driver, world, guest):
    first, next_one = world.make_volume(), world.make_volume()
    needs(driver, AttachesVolumes).attach_volume(guest, first)
    driver.detach_volume(guest, first)
    driver.attach_volume(guest, next_one)


def test_detaching_twice_succeeds(driver, world, guest):
    volume = world.make_volume()
    needs(driver, AttachesVolumes).attach_volume(guest, volume)
    driver.detach_volume(guest, volume)
    driver.detach_volume(guest, volume)


def test_detaching_a_volume_that_was_never_attached_succeeds(driver, world, guest):
    needs(driver, AttachesVolumes).detach_volume(guest, world.make_volume())


def test_detaching_from_an_absent_guest_succeeds(driver, world, make):
    needs(driver, AttachesVolumes).detach_volume(make(), world.make_volume())


def test_an_absent_guest_takes_no_volume(driver, world, make):
    with pytest.raises(GuestNotFoundError):
        needs(driver, AttachesVolumes).attach_volume(make(), world.make_volume())


def test_a_late_detach_does_not_take_the_next_attachment(driver, world, guest):
    volume = world.make_volume()
    again = dataclasses.replace(volume, attachment_id=volume.attachment_id + 1_000_000)
    needs(driver, AttachesVolumes).attach_volume(guest, again)
    driver.detach_volume(guest, volume)
    with pytest.raises(VolumeError):
        driver.attach_volume(guest, world.make_volume(device=again.device))


def test_a_volume_survives_a_hard_reboot_from_its_spec(driver, world, guest):
    volume = world.make_volume()
    needs(driver, AttachesVolumes).attach_volume(guest, volume)
    driver.reboot(dataclasses.replace(guest, volumes=(volume,)), hard=True)
    with pytest.raises(VolumeError):
        driver.attach_volume(guest, world.make_volume(device=volume.device))


def test_a_volume_of_a_destroyed_guest_is_free(driver, world, guest, make):
    volume, other = world.make_volume(), make()
    needs(driver, AttachesVolumes).attach_volume(guest, volume)
    driver.destroy(guest)
    driver.spawn(other)
    driver.attach_volume(other, volume)


def test_an_interface_is_plugged_in_and_out(driver, world, guest):
    vif = world.make_vif()
    needs(driver, AttachesNics).attach_nic(guest, vif)
    driver.detach_nic(guest, vif)
    assert driver.get_info(guest.name).power is Power.RUNNING


def test_plugging_and_unplugging_twice_succeeds(driver, world, guest):
    vif = world.make_vif()
    needs(driver, AttachesNics)
    for plug in (driver.attach_nic, driver.attach_nic, driver.detach_nic, driver.detach_nic):
        plug(guest, vif)


def test_a_plugged_interface_is_counted(driver, world, guest):
    needs(driver, ReportsStats)
    before = len(driver.list_interfaces(guest.name))
    needs(driver, AttachesNics).attach_nic(guest, world.make_vif())
    assert len(driver.list_interfaces(guest.name)) == before + 1


@pytest.mark.parametrize("verb", ["attach_nic", "detach_nic"])
def test_an_absent_guest_has_no_interfaces(driver, world, make, verb):
    needs(driver, AttachesNics)
    with pytest.raises(GuestNotFoundError):
        getattr(driver, verb)(make(), world.make_vif())


@pytest.mark.parametrize("off", [False, True])
def test_a_snapshot_is_the_file_it_says(driver, guest, tmp_path, off):
    snapshots = needs(driver, Snapshots)
    if off:
        driver.power_off(guest)
    before = driver.get_info(guest.name).power
    result = snapshots.snapshot(guest, str(tmp_path / "snapshot"))
    data = Path(result.path).read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (result.size_bytes, result.sha256)
    assert driver.get_info(guest.name).power is before


@pytest.mark.parametrize("last", ["first", "last"])
def test_a_snapshot_cancelled_at_a_step_leaves_neither_file_nor_trace(driver, world, guest, tmp_path, last):
    snapshots, steps, before = needs(driver, Snapshots), [], world.leftovers(guest)
    Path(snapshots.snapshot(guest, str(tmp_path / "rehearsal"), steps.append).path).unlink()
    remaining = iter(steps[1:] if last == "last" else [])

    def cancel_then(step):
        if next(remaining, None) is None:
            raise CancelledByTestError

    with pytest.raises(CancelledByTestError):
        snapshots.snapshot(guest, str(tmp_path / "snapshot"), cancel_then)
    assert list(tmp_path.iterdir()) == []
    assert world.leftovers(guest) == before
    assert driver.get_info(guest.name).power is Power.RUNNING


def test_a_guest_can_be_destroyed_after_a_snapshot(driver, world, guest, tmp_path):
    needs(driver, Snapshots).snapshot(guest, str(tmp_path / "snapshot"))
    driver.destroy(guest)
    assert world.leftovers(guest) == []


def test_an_absent_guest_has_no_snapshot(driver, make, tmp_path):
    with pytest.raises(GuestNotFoundError):
        needs(driver, Snapshots).snapshot(make(), str(tmp_path / "snapshot"))
    assert list(tmp_path.iterdir()) == []


def test_a_console_has_no_more_than_was_asked_for(driver, guest):
    assert len(needs(driver, HasConsole).get_console_output(guest, max_bytes=10).encode()) <= 10


def test_an_absent_guest_has_no_console(driver, make):
    with pytest.raises(GuestNotFoundError):
        needs(driver, HasConsole).get_console_output(make())


@pytest.mark.parametrize("kind", ["get_ajax_console", "get_vnc_console"])
def test_a_console_has_a_port_and_a_token_nobody_can_guess(driver, guest, kind):
    needs(driver, HasConsole)
    needs_method(driver, kind)
    first, second = getattr(driver, kind)(guest), getattr(driver, kind)(guest)
    assert 0 < first.port < 65536
    assert first.host
    assert len(first.token) >= 16
    assert first.token != second.token


@pytest.mark.parametrize("kind", ["get_ajax_console", "get_vnc_console"])
def test_a_guest_that_is_off_has_no_screen(driver, guest, kind):
    needs(driver, HasConsole)
    needs_method(driver, kind)
    driver.power_off(guest)
    with pytest.raises(GuestStateError):
        getattr(driver, kind)(guest)


def test_the_token_of_a_console_is_not_printed(driver, guest):
    access = needs(driver, HasConsole).get_ajax_console(guest)
    assert access.token not in repr(access)


def test_what_a_hypervisor_is_not_able_to_do_is_said_so(driver, guest):
    for method in unable_methods(driver):
        arguments = (guest.name, "0") if method.endswith("_stats") else (guest,)
        with pytest.raises(UnsupportedError):
            getattr(driver, method)(*arguments)
    assert driver.get_info(guest.name).power is Power.RUNNING


def test_a_console_pool_has_an_address(driver):
    assert needs(driver, HasConsole).get_console_pool_info("vnc").address


def test_the_agent_of_a_running_guest_obeys(driver, world, guest):
    needs(driver, InjectsGuest)
    needs_helper(world, "wait_for_agent")
    world.wait_for_agent(guest)
    driver.set_admin_password(guest, "s3cret")
    driver.inject_file(guest, "/etc/motd", b"hello\x00")
    driver.inject_network_info(guest)
    driver.reset_network(guest)


def test_no_agent_answers_in_a_guest_that_is_off(driver, guest):
    injects = needs(driver, InjectsGuest)
    driver.power_off(guest)
    for ask in (
        lambda: injects.set_admin_password(guest, "s3cret"),
        lambda: injects.inject_file(guest, "/etc/motd", b"hello"),
        lambda: injects.reset_network(guest),
    ):
        with pytest.raises(GuestStateError):
            ask()


def test_no_agent_answers_in_an_absent_guest(driver, make):
    with pytest.raises(GuestNotFoundError):
        needs(driver, InjectsGuest).inject_file(make(), "/etc/motd", b"hello")


def test_filters_may_be_set_before_the_guest_is_there(driver, world, make):
    spec = make(security_groups=(a_group(a_rule()),))
    needs(driver, FiltersTraffic).ensure_filtering_rules_for_instance(spec)
    assert world.leftovers(spec) != []
    driver.unfilter_instance(spec)
    assert world.leftovers(spec) == []


def test_a_guest_can_be_spawned_behind_its_filters(driver, make):
    spec = make(security_groups=(a_group(a_rule()),))
    needs(driver, FiltersTraffic).ensure_filtering_rules_for_instance(spec)
    driver.spawn(spec)
    assert driver.get_info(spec.name).power is Power.RUNNING


def test_setting_and_removing_filters_twice_succeeds(driver, make):
    filters, spec = needs(driver, FiltersTraffic), make()
    for change in (filters.ensure_filtering_rules_for_instance, filters.unfilter_instance):
        change(spec)
        change(spec)


def test_groups_can_be_refreshed_with_and_without_guests(driver, guest, make):
    filters = needs(driver, FiltersTraffic)
    changed = dataclasses.replace(guest, security_groups=(a_group(a_rule(), a_rule(protocol="icmp", from_port=-1)),))
    filters.refresh_security_group_rules([changed, make()])
    filters.refresh_security_group_rules([])
    filters.refresh_security_group_members(1, ["10.0.0.3"])
    filters.refresh_security_group_members(1, [])
    filters.refresh_provider_fw_rules([])


def test_a_running_guest_has_diagnostics(driver, guest):
    diagnostics = needs(driver, ReportsStats).get_diagnostics(guest)
    assert diagnostics
    assert all(isinstance(value, int) and value >= 0 for value in diagnostics.values())


def test_a_guest_that_is_off_has_no_diagnostics(driver, guest):
    stats = needs(driver, ReportsStats)
    driver.power_off(guest)
    with pytest.raises(GuestStateError):
        stats.get_diagnostics(guest)


def test_every_disk_and_interface_has_counters(driver, guest):
    stats = needs(driver, ReportsStats)
    disks, interfaces = stats.list_disks(guest.name), stats.list_interfaces(guest.name)
    assert disks
    assert len(interfaces) == len(guest.vifs)
    needs_method(driver, "block_stats")
    assert all(stats.block_stats(guest.name, disk).read_bytes >= 0 for disk in disks)
    assert all(stats.interface_stats(guest.name, interface).rx_bytes >= 0 for interface in interfaces)


@pytest.mark.parametrize("verb", ["list_disks", "list_interfaces"])
def test_an_absent_guest_has_no_counters(driver, verb):
    needs(driver, ReportsStats)
    with pytest.raises(GuestNotFoundError):
        getattr(driver, verb)("instance-ffffffff")


def test_a_guest_that_boots_from_a_volume_has_no_root_disk_to_copy(driver, world, make, tmp_path):
    needs(driver, BootsFromVolumes)
    root = world.make_volume(device="/dev/vda", is_root=True)
    spec = make(image=None, volumes=(root,))
    driver.spawn(spec)
    assert driver.get_info(spec.name).power is Power.RUNNING
    with pytest.raises(VolumeError, match=f"volume {root.volume_id}: "):
        needs(driver, Snapshots).snapshot(spec, str(tmp_path / "snapshot"))
    driver.destroy(spec)
    assert world.leftovers(spec) == []
