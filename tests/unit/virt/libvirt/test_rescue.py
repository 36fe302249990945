"""Rescue on libvirt's test hypervisor: what is left when it fails or crashes at any step."""

from __future__ import annotations

import dataclasses

import pytest

from tests.builders import a_volume, an_image
from virt.errors import VirtError, VolumeError
from virt.libvirt.build import Builder
from virt.libvirt.domains import Domains
from virt.power_state import Power


@pytest.fixture
def guest(world):
    kernel = an_image(id=2, name="kernel", location=str(world.images / "root"), disk_format="aki")
    spec = world.make_guest(kernel=kernel)
    world.driver.spawn(spec)
    return spec


def files(world, spec):
    return sorted(path.name for path in (world.instances / spec.name).glob("*.rescue*"))


def document(world, spec):
    return world.connection.lookupByUUIDString(spec.uuid).XMLDesc(0)


def is_as_before(world, spec, power=Power.RUNNING):
    assert world.driver.get_info(spec.name).power is power
    return not files(world, spec) and "rescue" not in document(world, spec)


def test_a_rescue_boots_its_own_files_with_the_root_beside(world, guest):
    world.driver.rescue(guest, guest)
    assert files(world, guest) == ["disk.rescue", "disk.rescue.base", "kernel.rescue"]
    found = document(world, guest)
    assert found.index("/disk.rescue'") < found.index("/disk'")
    assert "/kernel.rescue</kernel>" in found


@pytest.mark.parametrize(("owner", "method"), [(Builder, "make_rescue"), (Domains, "restart")])
@pytest.mark.parametrize("off", [False, True])
def test_a_rescue_that_fails_puts_everything_back(world, guest, monkeypatch, owner, method, off):
    real, calls = getattr(owner, method), []

    def fail_once(*args, **kwargs):
        calls.append(args)
        real(*args, **kwargs)
        if len(calls) == 1:
            raise VirtError("no")

    if off:
        world.driver.power_off(guest)
    monkeypatch.setattr(owner, method, fail_once)
    with pytest.raises(VirtError, match=r"^no$"):
        world.driver.rescue(guest, guest)
    assert is_as_before(world, guest, Power.SHUTOFF if off else Power.RUNNING)


@pytest.mark.parametrize("last", ["downloading image", "making disks", "starting the rescue"])
def test_a_cancelled_rescue_leaves_the_guest_as_it_was(world, guest, last):
    def cancel(step):
        if step == last:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.driver.rescue(guest, guest, cancel)
    assert is_as_before(world, guest)


def crash(*_args, **_kwargs):
    raise KeyboardInterrupt


@pytest.mark.parametrize("then", ["rescue", "unrescue"])
def test_a_rescue_that_crashed_before_its_start_can_go_either_way(world, guest, monkeypatch, then):
    monkeypatch.setattr(Domains, "restart", crash)
    monkeypatch.setattr(Builder, "remove_rescue", lambda *_args: None)
    monkeypatch.setattr(Domains, "define", lambda *_args: None)
    with pytest.raises(KeyboardInterrupt):
        world.driver.rescue(guest, guest)
    monkeypatch.undo()
    if then == "rescue":
        world.driver.rescue(guest, guest)
    world.driver.unrescue(guest)
    assert is_as_before(world, guest)


def test_an_unrescue_that_crashed_between_stop_and_start_starts_the_guest(world, guest):
    own = document(world, guest)
    world.driver.rescue(guest, guest)
    world.driver.power_off(guest)
    world.connection.defineXML(own)
    world.driver.unrescue(guest)
    assert is_as_before(world, guest)


def test_an_unrescue_that_crashed_before_it_tidied_up_tidies_up(world, guest, monkeypatch):
    world.driver.rescue(guest, guest)
    monkeypatch.setattr(Builder, "remove_rescue", crash)
    with pytest.raises(KeyboardInterrupt):
        world.driver.unrescue(guest)
    monkeypatch.undo()
    world.driver.unrescue(guest)
    assert is_as_before(world, guest)


def test_a_guest_whose_volume_is_broken_can_be_rescued(world, guest):
    broken = dataclasses.replace(guest, volumes=(a_volume(),))
    with pytest.raises(VolumeError):
        world.driver.reboot(broken)
    world.driver.rescue(broken, broken)
    assert "disk.rescue" in document(world, guest)
