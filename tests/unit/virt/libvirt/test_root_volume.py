"""A guest that boots from a volume: it has no root disk of its own, and its volume comes first."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import ClassVar

import pytest

from tests.builders import a_guest, a_volume, an_image
from tests.conformance.targets.libvirt_test import TestDriverWorld
from virt.driver import no_progress
from virt.errors import VolumeError
from virt.libvirt import host, migration
from virt.libvirt.domain import Platform, domain_for, rescue_domain_for
from virt.libvirt.layout import Layout
from virt.power_state import Power

PLATFORM = Platform(type="qemu", arch="x86_64", cluster="micronova", force_config_drive=False)
KERNEL = an_image(name="kernel", disk_format="aki")


@pytest.fixture
def layout(tmp_path):
    return Layout.of(tmp_path, "instance-00000001")


def from_volume(**changes):
    root = a_volume(device="/dev/vda", is_root=True, connection={"protocol": "file", "source": "/volumes/root"})
    return a_guest(**({"image": None, "volumes": (root, a_volume(device="/dev/vdd"))} | changes))


def disks(domain):
    return {disk.target: (disk.file or "").rpartition("/")[2] for disk in domain.disks}


def test_its_volume_is_the_first_disk_and_its_own_disks_follow(layout):
    spec = from_volume(ephemeral_gb=1, swap_mb=64)
    named = disks(domain_for(spec, layout, PLATFORM))
    assert named == {"vda": "root", "vdb": "disk.local", "vdc": "disk.swap", "vdd": str(spec.volumes[1].volume_id)}


def test_an_image_beside_it_lends_its_properties_and_no_bytes(layout):
    image = an_image(properties={"hw_machine_type": "q35"})
    domain = domain_for(from_volume(image=image), layout, PLATFORM)
    assert (domain.machine, disks(domain)["vda"]) == ("q35", "root")


def test_a_kernel_beside_it_is_told_where_the_root_is(layout):
    assert "root=/dev/vda" in str(domain_for(from_volume(kernel=KERNEL), layout, PLATFORM).cmdline)


def test_a_rescue_has_it_as_the_second_disk_and_no_other_volume(layout):
    spec = from_volume()
    domain = rescue_domain_for(spec, a_guest(volumes=()), layout, PLATFORM)
    assert disks(domain) == {"vda": "disk.rescue", "vdb": "root"}


class Arrived:
    """A migration that is over as soon as it is asked for; `asked` is what for."""

    error = None
    asked: ClassVar[list[int]] = []

    def __init__(self, _domains, _spec, work, _timeout_s):
        work(SimpleNamespace(migrateToURI3=lambda _uri, _parameters, flags: self.asked.append(flags)))


def test_it_migrates_without_a_copy_of_its_volume(monkeypatch):
    monkeypatch.setattr(migration, "_Move", Arrived)
    monkeypatch.setattr(migration.Migrator, "_follow", lambda *_args: None)
    for own in ([], ["vdb"]):
        monkeypatch.setattr(migration.Migrator, "_own_disks", lambda _self, _spec, own=own: own)
        migrator = migration.Migrator(None, None, SimpleNamespace(uri_of=str), migration.Manner())
        migrator._run(from_volume(), "there", no_progress, shared=False)
    assert [bool(flags & host.MIGRATE_DISKS) for flags in Arrived.asked] == [False, True]


@pytest.fixture
def guest(world: TestDriverWorld, tmp_path):
    (tmp_path / "root").write_bytes(bytes(1024**2))
    root = a_volume(device="/dev/vda", is_root=True, connection={"protocol": "file", "source": str(tmp_path / "root")})
    spec = world.make_guest(image=None, volumes=(root,))
    world.driver.spawn(spec)
    return spec


def test_no_root_disk_is_made_for_it(world, guest):
    assert "disk" not in {path.name for path in (world.instances / guest.name).iterdir()}
    world.driver.reboot(guest)
    assert world.driver.get_info(guest.name).power is Power.RUNNING


def test_an_image_beside_it_is_not_even_fetched(world, guest, tmp_path):
    world.driver.destroy(guest)
    world.driver.spawn(dataclasses.replace(guest, image=an_image(location=str(tmp_path / "nowhere"))))
    assert world.driver.get_info(guest.name).power is Power.RUNNING


def test_it_is_rescued_and_boots_its_volume_again(world, guest):
    world.driver.rescue(guest, world.make_guest())
    assert world.driver.get_info(guest.name).power is Power.RUNNING
    world.driver.unrescue(guest)
    assert not list((world.instances / guest.name).glob("*.rescue*"))


def test_there_is_nothing_to_make_a_snapshot_of(world, guest, tmp_path):
    with pytest.raises(VolumeError, match="there is no disk of its own to copy"):
        world.driver.snapshot(guest, str(tmp_path / "snapshot"))


@pytest.mark.parametrize("verb", ["reboot", "rescue"])
def test_a_volume_that_is_gone_stops_nothing(world, guest, tmp_path, verb):
    (tmp_path / "root").unlink()
    more = (world.make_guest(),) if verb == "rescue" else ()
    with pytest.raises(VolumeError, match="No such file"):
        getattr(world.driver, verb)(guest, *more)
    assert world.driver.get_info(guest.name).power is Power.RUNNING
