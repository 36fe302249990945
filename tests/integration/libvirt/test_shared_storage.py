"""Two hosts that see one instances directory: nothing is copied that need not be, and nothing removed that is in use.

The guests have an empty disk, so they run their firmware: nobody waits for them to boot.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.builders import a_guest, an_image
from tests.integration.servers import LibvirtHost, running, scratch_folder
from tests.integration.two_hosts import ADDRESSES, second_host
from virt.disk import Disks
from virt.errors import HypervisorError
from virt.firewall.noop import NoopFirewall
from virt.images import ImageCache
from virt.libvirt.build import Builder
from virt.libvirt.domain import Platform
from virt.libvirt.driver import LibvirtDriver
from virt.libvirt.host import Host, open_libvirt
from virt.libvirt.migration import Manner
from virt.libvirt.peer import Peers
from virt.network.bridges import Bridges
from virt.network.networks import Networks
from virt.power_state import Power
from virt.spec import InstanceSpec


class Both:
    """A driver for each of two hosts, which share `instances`."""

    def __init__(self, folder: Path, *hosts: LibvirtHost) -> None:
        self.folder, self.instances, self._hosts = folder, folder / "instances", hosts
        (folder / "blank").write_bytes(bytes(1024**2))
        self.here, self.there = (self.driver(host, unsafe=True) for host in hosts)

    def driver(self, host: LibvirtHost, **manner: Any) -> LibvirtDriver:
        made = LibvirtDriver(
            Host(host.uri),
            Platform(type="qemu", arch="", cluster="shared"),
            Builder(self.instances, ImageCache(self.instances / "_base", self.folder), Disks()),
            networks=Networks(Bridges(netns=f"/proc/{host.pid}/ns/net"), host.folder / "networks"),
            firewall=NoopFirewall(),
            peers=Peers("qemu+tcp://%s/system", connect=self._connect),
            manner=Manner(tls=False, **manner),
        )
        made.init_host(host.name)
        return made

    def _connect(self, uri: str) -> Any:
        (host,) = [host for host, address in zip(self._hosts, ADDRESSES, strict=True) if address in uri]
        return open_libvirt(host.uri)

    def files(self) -> set[str]:
        return {path.name for path in self.instances.iterdir()} - {"_base"}


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    with (
        running(functools.partial(LibvirtHost, name="one", network=True, unprivileged=True)) as one,
        second_host(one, "other") as other,
        scratch_folder() as folder,
    ):
        made = Both(folder, one, other)
        yield made
        made.here.close()
        made.there.close()


@pytest.fixture
def guest(both: Both) -> Iterator[InstanceSpec]:
    """A guest that runs on the first host."""
    spec = a_guest(vifs=(), memory_mb=64, image=an_image(location=str(both.folder / "blank")))
    both.here.spawn(spec)
    yield spec
    for driver in (both.here, both.there):
        driver.confirm_resize(spec)
        driver.destroy(spec)
    assert both.files() == set()


def power(driver: LibvirtDriver, spec: InstanceSpec) -> Power | None:
    return {fact.name: fact.power for fact in driver.list_guests()}.get(spec.name)


def inode(both: Both, spec: InstanceSpec) -> int:
    return (both.instances / spec.name / "disk").stat().st_ino


def test_the_hosts_see_each_others_test_file(both: Both) -> None:
    name = both.here.create_shared_storage_test_file()
    assert both.there.check_shared_storage_test_file(name)
    both.there.cleanup_shared_storage_test_file(name)
    assert not both.here.check_shared_storage_test_file(name)


def test_a_live_guest_moves_there_and_back_and_keeps_its_very_disk(both: Both, guest: InstanceSpec) -> None:
    disk = inode(both, guest)
    for source, dest, address in ((both.here, both.there, ADDRESSES[1]), (both.there, both.here, ADDRESSES[0])):
        dest.pre_live_migration(guest)
        source.live_migration(guest, address)
        source.cleanup_live_migration(guest)
        assert (power(source, guest), power(dest, guest)) == (None, Power.RUNNING)
        assert inode(both, guest) == disk


def test_what_a_failed_migration_prepared_is_taken_back_and_no_disk(both: Both, guest: InstanceSpec) -> None:
    disk = inode(both, guest)
    both.there.pre_live_migration(guest)
    both.there.cleanup_live_migration(guest)
    assert power(both.here, guest) is Power.RUNNING
    assert inode(both, guest) == disk


def test_libvirts_word_on_unsafe_disks_is_taken_unless_told_otherwise(both: Both, guest: InstanceSpec) -> None:
    careful = both.driver(both._hosts[0])
    both.there.pre_live_migration(guest)
    with pytest.raises(HypervisorError, match=r"[Uu]nsafe"):
        careful.live_migration(guest, ADDRESSES[1])
    assert power(careful, guest) is Power.RUNNING
    careful.close()


def test_a_resized_guest_leaves_its_old_disk_until_it_is_confirmed(both: Both, guest: InstanceSpec) -> None:
    old, bigger = inode(both, guest), dataclasses.replace(guest, memory_mb=96, root_gb=2)
    both.there.finish_resize(bigger, both.here.migrate_disk_and_power_off(guest, ADDRESSES[1]))
    assert (power(both.here, guest), power(both.there, guest)) == (None, Power.RUNNING)
    assert inode(both, guest) != old
    both.there.destroy(bigger)
    both.here.revert_resize(guest)
    assert power(both.here, guest) is Power.RUNNING
    assert inode(both, guest) == old
