"""Guests that outlive the daemon, and move between daemons."""

from __future__ import annotations

import multiprocessing
import os
from contextlib import contextmanager

import pytest
from oslo_config import cfg

from tests.builders import a_group, a_guest, a_rule, a_volume
from virt.errors import DriverConfigError, VolumeError
from virt.fake import filters
from virt.fake.driver import FakeDriver
from virt.fake.faults import POINTS
from virt.fake.hypervisor import FakeCloud
from virt.fake.journal import Journal
from virt.fake.records import dump
from virt.power_state import Power

_processes = multiprocessing.get_context("spawn")


@contextmanager
def daemon(path, host="here"):
    """A driver as a daemon has one, ended in good order."""
    driver = FakeDriver(FakeCloud(path))
    driver.init_host(host)
    yield driver
    driver.close()


def die_at(path, point, verb, *args):
    """In another process: a daemon of `here` that is killed at a point of a call."""
    with daemon(path) as driver:
        driver.faults.at(point, lambda: os._exit(137))
        getattr(driver, verb)(*args)


def killed(path, point, verb, *args):
    process = _processes.Process(target=die_at, args=(path, point, verb, *args))
    process.start()
    process.join(30)
    assert process.exitcode == 137


def test_a_guest_outlives_the_daemon(tmp_path):
    guest = a_guest()
    with daemon(tmp_path) as driver:
        driver.spawn(guest)
        driver.pause(guest)
        before = driver.host_resources()
    with daemon(tmp_path) as driver:
        assert driver.get_info(guest.name).power is Power.PAUSED
        assert driver.host_resources() == before


def test_a_destroyed_guest_stays_gone(tmp_path):
    guest = a_guest()
    with daemon(tmp_path) as driver:
        driver.spawn(guest)
        driver.destroy(guest)
    with daemon(tmp_path) as driver:
        assert driver.hypervisor.names() == []


def test_group_members_and_provider_rules_outlive_the_daemon(tmp_path):
    guest = a_guest(security_groups=(a_group(a_rule(group_id=7)),))
    with daemon(tmp_path) as driver:
        driver.spawn(guest)
        driver.refresh_security_group_members(7, ["10.0.0.9"])
        driver.refresh_provider_fw_rules(
            [{"protocol": "tcp", "cidr": "10.0.0.9/32", "from_port": "23", "to_port": "23"}]
        )
    with daemon(tmp_path) as driver:
        assert filters.admits(driver.hypervisor, guest.name, "tcp", 22, "10.0.0.9")
        assert not filters.admits(driver.hypervisor, guest.name, "tcp", 23, "10.0.0.9")


@pytest.mark.parametrize("point", [point for point in POINTS["spawn"] if point != "spawn.done"])
def test_what_a_kill_in_a_spawn_leaves_can_be_destroyed_and_spawned_over(tmp_path, point):
    guest = a_guest(volumes=(a_volume(),))
    killed(tmp_path, point, "spawn", guest)
    with daemon(tmp_path) as driver:
        assert driver.list_guests() == []
        driver.spawn(guest)
        driver.destroy(guest)
        assert driver.hypervisor.names() == []
        assert driver.hypervisor.usage == (0, 0, 0)


def test_a_kill_in_a_spawn_leaves_what_was_made_by_then(tmp_path):
    killed(tmp_path, "spawn.network", "spawn", guest := a_guest())
    with daemon(tmp_path) as driver:
        held = driver.hypervisor.leftovers()[guest.name]
        assert held.disks
        assert not held.taps


def test_a_kill_before_the_answer_of_a_spawn_leaves_the_guest_running(tmp_path):
    killed(tmp_path, "spawn.done", "spawn", guest := a_guest())
    with daemon(tmp_path) as driver:
        assert driver.get_info(guest.name).power is Power.RUNNING


def test_a_host_is_open_to_one_driver_at_a_time(tmp_path):
    with daemon(tmp_path), pytest.raises(DriverConfigError, match="fake_state_path"):
        FakeDriver(FakeCloud(tmp_path)).init_host("here")


def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path):
    guest = a_guest()
    with daemon(tmp_path) as driver:
        driver.spawn(guest)
    with (tmp_path / "here.jsonl").open("a") as journal:
        journal.write('{"name":"instance-')
    with daemon(tmp_path) as driver:
        assert [fact.name for fact in driver.list_guests()] == [guest.name]


def test_a_journal_does_not_grow_with_the_changes(tmp_path):
    guest = a_guest()
    with daemon(tmp_path) as driver:
        driver.spawn(guest)
        for _ in range(1500):
            driver.pause(guest)
            driver.unpause(guest)
    assert (tmp_path / "here.jsonl").read_text().count("\n") < 1100


def test_closing_a_journal_twice_does_no_harm(tmp_path):
    journal = Journal(tmp_path / "here.jsonl")
    journal.close()
    journal.close()


def test_a_guest_migrates_between_daemons(tmp_path):
    guest = a_guest(volumes=(a_volume(),))
    with daemon(tmp_path) as here, daemon(tmp_path, "there") as there:
        here.spawn(guest)
        there.pre_live_migration(guest)
        here.live_migration(guest, "there")
        assert there.get_info(guest.name).power is Power.RUNNING
    with daemon(tmp_path) as here, daemon(tmp_path, "there") as there:
        assert here.list_guests() == []
        assert [fact.name for fact in there.list_guests()] == [guest.name]


def test_a_guest_that_was_sent_to_a_daemon_that_is_down_arrives_when_it_starts(tmp_path):
    guest = a_guest()
    with daemon(tmp_path) as here:
        here.spawn(guest)
        with daemon(tmp_path, "there") as there:
            there.pre_live_migration(guest)
        here.live_migration(guest, "there")
    with daemon(tmp_path, "there") as there:
        assert there.get_info(guest.name).power is Power.RUNNING


@pytest.mark.parametrize("point", POINTS["live_migration"])
def test_a_guest_is_on_exactly_one_host_wherever_a_live_migration_is_killed(tmp_path, point):
    guest = a_guest()
    with daemon(tmp_path) as here, daemon(tmp_path, "there") as there:
        here.spawn(guest)
        there.pre_live_migration(guest)
    killed(tmp_path, point, "live_migration", guest, "there")
    with daemon(tmp_path) as here, daemon(tmp_path, "there") as there:
        assert len(here.list_guests()) + len(there.list_guests()) == 1


@pytest.mark.parametrize("sent", [False, True])
def test_a_hand_over_cut_short_took_place_exactly_if_it_was_sent(tmp_path, sent):
    guest = a_guest()
    with daemon(tmp_path) as here, daemon(tmp_path, "there") as there:
        here.spawn(guest)
        world = here.hypervisor
        held = world.held(guest.name)
        world.commons.stage("here", "token", dump(held))
        held.moving = "token"
        world.save(held)
        if sent:
            world.commons.send("here", "there", "token")
    with daemon(tmp_path) as here, daemon(tmp_path, "there") as there:
        assert [len(driver.list_guests()) for driver in (here, there)] == ([0, 1] if sent else [1, 0])


@pytest.mark.parametrize("point", POINTS["migrate_disk_and_power_off"])
def test_a_resize_that_was_killed_can_be_repeated(tmp_path, point):
    guest = a_guest()
    with daemon(tmp_path) as here, daemon(tmp_path, "there"):
        here.spawn(guest)
    killed(tmp_path, point, "migrate_disk_and_power_off", guest, "there")
    with daemon(tmp_path) as here, daemon(tmp_path, "there") as there:
        there.finish_resize(guest, here.migrate_disk_and_power_off(guest, "there"))
        here.confirm_resize(guest)
        assert there.get_info(guest.name).power is Power.RUNNING
        assert here.hypervisor.names() == []


def test_a_volume_is_attached_once_in_all_the_daemons(tmp_path):
    volume, first, second = a_volume(), a_guest(), a_guest()
    with daemon(tmp_path) as here, daemon(tmp_path, "there") as there:
        here.spawn(first)
        there.spawn(second)
        here.attach_volume(first, volume)
        with pytest.raises(VolumeError):
            there.attach_volume(second, volume)
        here.detach_volume(first, volume)
        there.attach_volume(second, volume)


def test_a_driver_is_built_from_its_options(tmp_path):
    conf = cfg.ConfigOpts()
    conf([])
    FakeDriver.from_conf(conf)
    conf.set_override("fake_state_path", str(tmp_path))
    conf.set_override("fake_memory_mb", 4096)
    driver = FakeDriver.from_conf(conf)
    driver.init_host("here")
    assert driver.host_resources().memory_mb == 4096
    driver.close()


def test_an_option_that_makes_no_sense_is_named():
    conf = cfg.ConfigOpts()
    conf([])
    FakeDriver.from_conf(conf)
    conf.set_override("fake_failures", ["spawn.lunch:HypervisorError"])
    with pytest.raises(DriverConfigError, match="fake_failures"):
        FakeDriver.from_conf(conf)
