"""Images that nobody should trust, wherever a guest may meet one: no program of the host ever sees them."""

from __future__ import annotations

import pytest

from tests.builders import an_image
from tests.unit.virt.test_image_format import CORPUS, with_backing_file
from virt.disk import Disks
from virt.errors import ImageError
from virt.libvirt.build import Builder
from virt.power_state import Power

EACH = pytest.mark.parametrize(("make", "declared", "reason"), CORPUS, ids=[f"{m.__name__}-{d}" for m, d, _ in CORPUS])


@pytest.fixture
def unseen(monkeypatch):
    """From when it is called, no qemu-img runs."""

    def forbid():
        monkeypatch.setattr(Disks, "_qemu_img", lambda *_args, **_more: pytest.fail("qemu-img ran"))

    return forbid


def evil(world, make, declared):
    return an_image(id=7, name="evil", location=str(make(world.images / "evil")), disk_format=declared)


@EACH
def test_a_guest_is_not_made_of_it(world, unseen, make, declared, reason):
    spec = world.make_guest(image=evil(world, make, declared))
    unseen()
    with pytest.raises(ImageError, match=rf"image evil.*{reason}|image evil: disk format|image evil is"):
        world.driver.spawn(spec)
    assert (world.leftovers(spec), sorted(world.instances.glob("*/*.part"))) == ([], [])


@EACH
def test_a_guest_is_not_rescued_by_it(world, unseen, make, declared, reason):
    spec = world.make_guest()
    world.driver.spawn(spec)
    rescue = world.make_guest(image=evil(world, make, declared))
    unseen()
    with pytest.raises(ImageError, match=rf"image evil.*{reason}|image evil: disk format|image evil is"):
        world.driver.rescue(spec, rescue)
    assert world.driver.get_info(spec.name).power is Power.RUNNING
    assert not list((world.instances / spec.name).glob("*.rescue*"))


def test_a_snapshot_that_turns_out_as_one_is_thrown_away(world, monkeypatch, tmp_path):
    spec = world.make_guest()
    world.driver.spawn(spec)
    world.driver.power_off(spec)
    monkeypatch.setattr(Builder, "copy_root", lambda _self, _name, path, _guard: with_backing_file(path))
    with pytest.raises(ImageError, match="backing file"):
        world.driver.snapshot(spec, str(tmp_path / "snapshot"))
    assert not (tmp_path / "snapshot").exists()
    assert not (world.instances / spec.name / "disk.snapshot").exists()
