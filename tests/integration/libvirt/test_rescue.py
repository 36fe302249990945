"""Rescue of real guests: the rescue image boots, the guest's own root is beside it, and back again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.builders import an_image
from virt.errors import HypervisorError, ImageError
from virt.power_state import Power

pytestmark = pytest.mark.real


def files(booted):
    return sorted(path.name for path in (Path(booted.conf.instances_path) / booted.spec.name).glob("*.rescue*"))


def since(booted, text):
    """What the guest printed after the last time that it printed `text`."""
    return booted.guests.console(booted.spec).rpartition(text)[2]


def serial(booted, part):
    return f"{booted.spec.uuid.replace('-', '')[:12]}-{part}"


def test_a_rescue_boots_a_fresh_image_beside_the_root_and_back(booted):
    booted.boots_again(lambda: booted.driver.rescue(booted.spec, booted.spec))
    said = since(booted, "ROOT ")
    assert said.startswith("/dev/vda")
    assert "BOOTS 1" in said
    assert f"vda:32768:{serial(booted, 'rescue')} vdb:2097152:{serial(booted, 'root')}" in said
    assert files(booted) == ["disk.rescue", "disk.rescue.base", "kernel.rescue", "ramdisk.rescue"]
    booted.boots_again(lambda: booted.driver.unrescue(booted.spec))
    assert "BOOTS 2" in since(booted, "ROOT ")
    assert f"vda:2097152:{serial(booted, 'root')}" in since(booted, "BOOTS ")
    assert files(booted) == []


def test_a_rescue_disk_boots_by_itself(booted):
    disk = booted.guests.with_disk().image
    rescue = dataclasses.replace(booted.spec, image=disk, kernel=None, ramdisk=None)
    booted.boots_again(lambda: booted.driver.rescue(booted.spec, rescue))
    assert since(booted, "ROOT ").startswith("/dev/vda2")
    assert f":{serial(booted, 'root')}" in since(booted, "BOOTS ")
    booted.boots_again(lambda: booted.driver.unrescue(booted.spec))


def test_a_rescue_that_is_asked_for_twice_is_one(booted):
    booted.driver.rescue(booted.spec, booted.spec)
    pid = booted.host.run("cat", f"/run/libvirt/qemu/{booted.spec.name}.pid")
    booted.driver.rescue(booted.spec, booted.spec)
    assert booted.host.run("cat", f"/run/libvirt/qemu/{booted.spec.name}.pid") == pid
    booted.driver.unrescue(booted.spec)
    booted.driver.unrescue(booted.spec)
    assert booted.driver.get_info(booted.spec.name).power is Power.RUNNING


def test_a_rescue_without_its_image_touches_nothing(booted):
    pid = booted.host.run("cat", f"/run/libvirt/qemu/{booted.spec.name}.pid")
    missing = dataclasses.replace(booted.spec, image=an_image(location="/nowhere"))
    with pytest.raises(ImageError):
        booted.driver.rescue(booted.spec, missing)
    assert booted.host.run("cat", f"/run/libvirt/qemu/{booted.spec.name}.pid") == pid
    assert files(booted) == []


def test_a_rescue_that_qemu_cannot_start_puts_the_guest_back(booted, tmp_path):
    path = Path(booted.conf.images_path) / "no-kernel"
    path.write_bytes(b"no kernel")
    broken = dataclasses.replace(booted.spec, kernel=an_image(id=99, location=str(path), disk_format="aki"))
    try:
        with pytest.raises(HypervisorError):
            booted.driver.rescue(booted.spec, broken)
    finally:
        path.unlink()
    assert booted.driver.get_info(booted.spec.name).power is Power.RUNNING
    assert files(booted) == []
    assert booted.count("rescue") == 0
