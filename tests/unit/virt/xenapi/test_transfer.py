"""Bytes on their way: only the task says that they have come."""

from __future__ import annotations

import dataclasses

import pytest

from virt.errors import DiskFullError, HypervisorError
from virt.power_state import Power
from virt.xenapi import transfer

UP, DOWN = "import_raw_vdi", "export_raw_vdi"


@pytest.fixture
def snapshot(world, guest, tmp_path):
    """Make a snapshot of a running guest."""
    return lambda: world.driver.snapshot(guest, str(tmp_path / "snapshot"))


@pytest.mark.parametrize(("fault", "words"), [
    (("fail_transfer", UP, "SR_BACKEND_FAILURE_46", "", "The VDI is not available", ""), "The VDI is not available"),
    (("cut_transfer", UP, 500_000), "VDI_IO_ERROR"),
    (("refuse_transfer", UP, 500), "HTTP 500"),
    (("refuse_transfer", UP, 403), "HTTP 403"),
])  # fmt: skip
def test_an_upload_that_fails_names_the_cause_and_leaves_nothing(world, ours, fault, words):
    getattr(world.pool.faults, fault[0])(*fault[1:])
    with pytest.raises((HypervisorError, DiskFullError), match=words):
        world.driver.spawn(world.make_guest())
    assert ours() == {}
    assert world.pool.records("task") == {}


def test_a_config_drive_that_could_not_be_written_leaves_nothing(world, driver, guest, ours):
    before = ours()
    world.pool.faults.cut_transfer(UP, 10_000)
    with pytest.raises(HypervisorError):
        driver.reboot(dataclasses.replace(guest, metadata={"new": "facts"}))
    assert ours() == before
    assert driver.get_info(guest.name).power is Power.RUNNING


def test_an_upload_follows_to_the_other_host(world, driver):
    world.pool.faults.redirect(UP)
    spec = world.make_guest()
    driver.spawn(spec)
    assert [call.host for call in world.pool.calls_of(f"PUT /{UP}")][:2] == ["alpha", "beta"]
    assert world.contents(spec.name).startswith(b"\xeb\x3c\x90boot".hex())


def test_an_upload_that_is_sent_around_without_end_fails(world, ours):
    for number in range(1, 9):
        world.pool.faults.redirect(UP, nth=number)
    with pytest.raises(HypervisorError, match="from host to host without end"):
        world.driver.spawn(world.make_guest())
    assert ours() == {}


@pytest.mark.parametrize(("fault", "words"), [
    (("fail_transfer", DOWN, "SR_BACKEND_FAILURE_46", "", "The VDI is not available", ""), "The VDI is not available"),
    (("cut_transfer", DOWN, 2_000), "VDI_IO_ERROR"),
    (("refuse_transfer", DOWN, 500), "HTTP 500"),
])  # fmt: skip
def test_a_download_that_fails_names_the_cause_and_leaves_nothing(world, ours, snapshot, tmp_path, fault, words):
    before = ours()
    getattr(world.pool.faults, fault[0])(*fault[1:])
    with pytest.raises(HypervisorError, match=words):
        snapshot()
    assert not (tmp_path / "snapshot").exists()
    assert ours() == before


def test_a_download_follows_to_the_other_host(world, snapshot):
    world.pool.faults.redirect(DOWN)
    assert snapshot().size_bytes > 0


def test_a_transfer_has_a_deadline(world, ours, monkeypatch):
    monkeypatch.setattr(transfer, "_END_S", 0.1)
    monkeypatch.setattr(transfer, "STALL_S", 0.2)
    monkeypatch.setattr(transfer, "_EARLY_S", 0.1)
    world.pool.faults.hang_transfer(UP, 1.0)
    transfers = world.driver._parts.builder.disks._transfers
    transfers._timeout_s = 0.3
    with pytest.raises(HypervisorError, match="did not end within"):
        world.driver.spawn(world.make_guest())
    transfers._timeout_s = 60


def test_a_cancelled_upload_is_cancelled_in_the_pool_too(world, ours, monkeypatch):
    monkeypatch.setattr(transfer, "_PROGRESS_S", -1)

    class CancelledByTestError(Exception):
        pass

    def cancel(step):
        if step.startswith("uploading: "):
            raise CancelledByTestError

    with pytest.raises(CancelledByTestError):
        world.driver.spawn(world.make_guest(), cancel)
    assert ours() == {}
