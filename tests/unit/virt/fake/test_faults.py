"""Faults to order."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from tests.builders import a_guest
from virt.errors import (
    DiskError,
    DriverConfigError,
    DriverTimeoutError,
    GuestNotFoundError,
    HypervisorError,
    HypervisorUnreachableError,
)
from virt.fake.driver import FakeDriver
from virt.fake.faults import POINTS, STEPS
from virt.fake.hypervisor import FakeCloud
from virt.power_state import Power


@pytest.fixture
def driver():
    driver = FakeDriver()
    driver.init_host("here")
    yield driver
    driver.faults.clear()
    driver.close()


def test_a_failure_happens_as_often_as_ordered(driver):
    driver.faults.fail("spawn", HypervisorError("boom"), times=2)
    for _ in range(2):
        with pytest.raises(HypervisorError, match="boom"):
            driver.spawn(a_guest())
    driver.spawn(a_guest())


def test_a_failure_after_the_effect_loses_only_the_answer(driver):
    guest = a_guest()
    driver.faults.fail("spawn", DriverTimeoutError("lost"), after=True)
    with pytest.raises(DriverTimeoutError):
        driver.spawn(guest)
    assert driver.get_info(guest.name).power is Power.RUNNING


@pytest.mark.parametrize("step", STEPS["spawn"])
def test_a_spawn_that_fails_at_any_step_leaves_nothing(driver, step):
    driver.faults.fail(f"spawn.{step}", DiskError("full"))
    with pytest.raises(DiskError):
        driver.spawn(a_guest())
    assert driver.hypervisor.names() == []
    assert driver.hypervisor.usage == (0, 0, 0)


def test_every_step_of_a_spawn_is_a_point(driver):
    seen = []
    for point in POINTS["spawn"]:
        driver.faults.at(point, lambda point=point: seen.append(point))
    driver.spawn(a_guest())
    assert seen == list(POINTS["spawn"])


def test_a_point_that_does_not_exist_is_refused(driver):
    with pytest.raises(ValueError, match=r"spawn\.lunch"):
        driver.faults.at("spawn.lunch", lambda: None)


def test_a_hanging_call_goes_on_when_released(driver):
    driver.faults.hang("spawn.disks")
    guest = a_guest()
    thread = threading.Thread(target=driver.spawn, args=(guest,))
    thread.start()
    with pytest.raises(GuestNotFoundError):
        driver.get_info(guest.name)
    driver.faults.release()
    thread.join(5)
    assert driver.get_info(guest.name).power is Power.RUNNING


def test_a_hang_may_end_in_a_timeout(driver):
    driver.faults.hang("reboot", timeout_s=0.03)
    with pytest.raises(DriverTimeoutError):
        driver.reboot(a_guest())


def test_a_delay_takes_its_time(driver):
    driver.faults.delay("host_resources", 0.03)
    started = time.monotonic()
    driver.host_resources()
    assert time.monotonic() - started >= 0.03


def test_a_guest_destroyed_while_it_is_built_stays_away(driver):
    guest = a_guest()
    driver.faults.at("spawn.network", lambda: driver.destroy(guest))
    with pytest.raises(HypervisorError, match="removed"):
        driver.spawn(guest)
    assert driver.hypervisor.names() == []


def test_calls_are_counted(driver):
    driver.list_guests()
    driver.list_guests()
    assert driver.calls["list_guests"] == 2


@pytest.mark.parametrize("item", ["spawn:NoSuchError", "spawn:HypervisorError:x:many", "spawn:ProcessError", "spawn"])
def test_a_written_failure_that_makes_no_sense_is_refused(item):
    with pytest.raises(DriverConfigError, match="fake_failures"):
        FakeDriver(failures=[item])


def test_a_written_failure_fails(driver):
    driver.faults.load(["pause:HypervisorError:boom:1"])
    with pytest.raises(HypervisorError, match="boom"):
        driver.pause(a_guest())


def test_a_control_file_is_obeyed_until_it_is_gone(tmp_path):
    driver = FakeDriver(FakeCloud(tmp_path))
    driver.init_host("here")
    orders = tmp_path / "here.faults.json"
    orders.write_text(json.dumps({"unreachable": True}))
    with pytest.raises(HypervisorUnreachableError):
        driver.list_guests()
    orders.unlink()
    assert driver.list_guests() == []
    driver.close()


def test_a_control_file_replaces_what_it_ordered_before(tmp_path: Path):
    driver = FakeDriver(FakeCloud(tmp_path))
    driver.init_host("here")
    orders = tmp_path / "here.faults.json"
    orders.write_text(json.dumps({"fail": ["spawn:HypervisorError:boom"]}))
    with pytest.raises(HypervisorError):
        driver.spawn(a_guest())
    orders.write_text(json.dumps({"delay": {"spawn": 0.0}}))
    driver.spawn(a_guest())
    driver.close()
