"""What the fake hypervisor refuses, and what it keeps apart."""

from __future__ import annotations

import base64
import dataclasses
import threading
import time

import pytest

from tests.builders import a_group, a_guest, a_rule, a_volume, an_image
from virt.errors import (
    DiskError,
    DiskFullError,
    GuestStateError,
    HypervisorError,
    HypervisorUnreachableError,
    ImageError,
    VolumeError,
)
from virt.fake import filters
from virt.fake.driver import FakeDriver
from virt.fake.hypervisor import FakeCloud, HostSize
from virt.power_state import Power


def a_driver(cloud=None, host="here"):
    driver = FakeDriver(cloud)
    driver.init_host(host)
    return driver


def test_a_driver_that_is_not_connected_knows_nothing():
    with pytest.raises(HypervisorUnreachableError):
        FakeDriver().list_guests()


def test_a_host_gives_no_more_memory_than_it_has():
    driver = a_driver(FakeCloud(size=HostSize(memory_mb=1000)))
    driver.spawn(first := a_guest(memory_mb=600))
    with pytest.raises(HypervisorError, match="memory"):
        driver.spawn(a_guest(memory_mb=600))
    driver.power_off(first)
    driver.spawn(a_guest(memory_mb=600))
    with pytest.raises(HypervisorError, match="memory"):
        driver.power_on(first)


def test_a_host_gives_no_more_disk_than_it_has():
    driver = a_driver(FakeCloud(size=HostSize(local_gb=10)))
    with pytest.raises(DiskFullError):
        driver.spawn(a_guest(root_gb=11))


def test_a_full_host_is_not_ready_for_a_guest():
    cloud = FakeCloud(size=HostSize(memory_mb=1000))
    here, there = a_driver(cloud), a_driver(cloud, "there")
    here.spawn(guest := a_guest(memory_mb=600))
    there.spawn(a_guest(memory_mb=600))
    with pytest.raises(HypervisorError, match="memory"):
        there.pre_live_migration(guest)
    with pytest.raises(HypervisorError, match="not ready"):
        here.live_migration(guest, "there")


def test_a_migrated_guest_is_accounted_for_once():
    cloud = FakeCloud()
    here, there = a_driver(cloud), a_driver(cloud, "there")
    here.spawn(guest := a_guest())
    there.pre_live_migration(guest)
    here.live_migration(guest, "there")
    there.list_guests()
    assert (here.hypervisor.usage, there.hypervisor.usage) == ((0, 0, 0), (512, 1024, 1))


def test_an_image_that_needs_more_disk_is_refused():
    with pytest.raises(ImageError, match="needs 5 GiB"):
        a_driver().spawn(a_guest(image=an_image(min_disk_gb=5)))


def test_a_volume_in_use_by_another_guest_is_refused_at_boot_and_leaves_nothing():
    cloud, volume = FakeCloud(), a_volume()
    here, there = a_driver(cloud), a_driver(cloud, "there")
    here.spawn(a_guest(volumes=(volume,)))
    free = a_volume(device="/dev/vdc")
    with pytest.raises(VolumeError):
        there.spawn(a_guest(volumes=(free, volume)))
    there.spawn(a_guest(volumes=(free,)))


def test_a_deaf_guest_does_not_let_go_of_a_volume():
    driver, volume = a_driver(), a_volume()
    driver.spawn(guest := a_guest(volumes=(volume,)))
    driver.hypervisor.make_deaf(guest.name)
    with pytest.raises(VolumeError):
        driver.detach_volume(guest, volume)
    driver.power_off(guest)
    driver.detach_volume(guest, volume)


def test_a_root_disk_does_not_shrink():
    cloud = FakeCloud()
    here, there = a_driver(cloud), a_driver(cloud, "there")
    here.spawn(guest := a_guest(root_gb=10))
    info = here.migrate_disk_and_power_off(guest, "there")
    with pytest.raises(DiskError):
        there.finish_resize(dataclasses.replace(guest, root_gb=5), info)
    assert there.hypervisor.names() == []
    here.revert_resize(guest)


def test_a_resize_to_an_unknown_host_leaves_the_guest_running():
    driver = a_driver()
    driver.spawn(guest := a_guest())
    with pytest.raises(DiskError):
        driver.migrate_disk_and_power_off(guest, "nowhere")
    assert driver.get_info(guest.name).power is Power.RUNNING


def test_a_crashed_guest_is_rebooted_hard_and_soft():
    driver = a_driver()
    driver.spawn(guest := a_guest())
    for hard in (True, False):
        driver.hypervisor.turn(guest.name, Power.CRASHED)
        driver.reboot(guest, hard=hard)
        assert driver.get_info(guest.name).power is Power.RUNNING


def test_the_console_tells_of_every_boot_and_forgets_old_ones():
    driver = a_driver()
    driver.spawn(guest := a_guest())
    assert driver.get_console_output(guest).startswith("FAKE CONSOLE OUTPUT\nboot 1 (first)")
    for _ in range(100):
        driver.reboot(guest, hard=False)
    assert "boot 101 (soft)" in driver.get_console_output(guest)
    assert len(driver.get_console_output(guest)) < 4096


def test_cpu_time_grows_while_a_guest_runs_and_only_then():
    driver = a_driver()
    driver.spawn(guest := a_guest())
    time.sleep(0.002)
    running = driver.get_info(guest.name).cpu_time_ns
    driver.pause(guest)
    paused = driver.get_info(guest.name).cpu_time_ns
    time.sleep(0.002)
    assert 0 < running <= paused == driver.get_info(guest.name).cpu_time_ns


def test_an_injected_file_is_in_the_guest_and_a_password_is_nowhere_in_plain(tmp_path):
    driver = a_driver(FakeCloud(tmp_path))
    driver.spawn(guest := a_guest(admin_password="canary-one"))
    driver.inject_file(guest, "/etc/motd", b"hello")
    driver.set_admin_password(guest, "canary-two")
    assert base64.b64decode(driver.hypervisor.domain(guest.name).files["/etc/motd"]) == b"hello"
    driver.close()
    assert "canary" not in (tmp_path / "here.jsonl").read_text()


def test_a_relative_path_is_not_written():
    driver = a_driver()
    driver.spawn(guest := a_guest())
    with pytest.raises(HypervisorError):
        driver.inject_file(guest, "motd", b"")


def test_network_facts_are_used_at_the_next_reset():
    driver = a_driver()
    driver.spawn(guest := a_guest())
    driver.inject_network_info(guest)
    assert driver.hypervisor.domain(guest.name).network_in_use == []
    driver.reset_network(guest)
    assert driver.hypervisor.domain(guest.name).network_in_use == [str(guest.vifs[0].addresses[0])]


def test_a_guest_that_is_paused_is_not_started():
    driver = a_driver()
    driver.spawn(guest := a_guest())
    driver.pause(guest)
    with pytest.raises(GuestStateError):
        driver.power_on(guest)


@pytest.mark.parametrize(
    ("port", "source", "admitted"),
    [(22, "192.0.2.1", True), (23, "192.0.2.1", False), (80, "10.0.0.9", True), (80, "10.0.0.8", False)],
)
def test_filters_admit_what_the_rules_say(port, source, admitted):
    driver = a_driver()
    web = a_rule(from_port=80, to_port=80, group_id=7)
    driver.spawn(guest := a_guest(security_groups=(a_group(a_rule(), web, members={7: ("10.0.0.9",)}),)))
    driver.refresh_security_group_rules([guest])
    assert filters.admits(driver.hypervisor, guest.name, "tcp", port, source) is admitted


def test_the_filters_of_a_guest_that_is_here_stay():
    driver = a_driver()
    driver.spawn(guest := a_guest())
    driver.unfilter_instance(guest)
    assert not filters.admits(driver.hypervisor, guest.name, "tcp", 22, "192.0.2.1")


def test_a_seed_makes_runs_repeatable():
    def token():
        driver = a_driver(FakeCloud(seed=1))
        driver.spawn(guest := a_guest())
        return driver.get_vnc_console(guest).token

    assert token() == token()


def test_many_threads_leave_the_accounts_straight():
    driver = a_driver()

    def work():
        for _ in range(100):
            driver.spawn(guest := a_guest())
            driver.pause(guest)
            driver.destroy(guest)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (driver.hypervisor.usage, driver.hypervisor.names()) == ((0, 0, 0), [])


def test_two_spawns_of_one_name_make_one_guest():
    driver, guest, outcomes = a_driver(), a_guest(), []
    driver.faults.delay("spawn.disks", 0.01)

    def work():
        try:
            driver.spawn(guest)
            outcomes.append("made")
        except Exception as exc:  # noqa: BLE001 - whatever it is, the assertion shows it
            outcomes.append(type(exc).__name__)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["GuestExistsError"] * 3 + ["made"]
