"""A spawn fails after each step in turn, on real hosts: what is there afterwards was there before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance.harness import World
from tests.conformance.targets import libvirt_lxc, libvirt_qemu
from tests.integration.servers import LibvirtHost
from virt import configdrive, disk, rootfs
from virt.errors import VirtError
from virt.firewall.noop import NoopFirewall
from virt.images import ImageCache
from virt.libvirt.build import Builder
from virt.libvirt.domains import Domains
from virt.libvirt.lxc import LxcDriver
from virt.libvirt.lxc_build import ContainerBuilder
from virt.libvirt.volumes import Volumes
from virt.network.bridges import Bridges
from virt.network.dnsmasq import Dnsmasq
from virt.network.networks import Networks
from virt.spec import InstanceSpec

pytestmark = pytest.mark.real

COMMON = [
    (Volumes, "prepare"),
    (Bridges, "ensure"),
    (Dnsmasq, "read_hosts"),
    (Networks, "plug"),
    (ImageCache, "provide"),
    (configdrive, "files"),
    (NoopFirewall, "setup_basic_filtering"),
    (NoopFirewall, "prepare_instance_filter"),
    (Domains, "boot"),
    (NoopFirewall, "apply_instance_filter"),
    (Builder, "finish"),
]
MACHINE = [(disk.Disks, "create_overlay"), (disk.Disks, "create_empty"), (disk.Disks, "create_swap")]
CONTAINER = [
    (rootfs, "unpack"),
    (ContainerBuilder, "keep_console"),
    (LxcDriver, "_keep_console"),
    (LxcDriver, "_check_running"),
]


class Failure(VirtError):  # noqa: N818 - it says what the test does
    """What the step raises."""


def audit(server: LibvirtHost, world: Any) -> dict[str, list[str]]:
    """Everything that a guest could have left on its host, in words of the programs that know."""
    lists = [server.run("virsh", "-c", f"{uri}:///system", "list", "--all", "--name") for uri in ("qemu", "lxc")]
    return {
        "guests": "".join(lists).split(),
        "links": [line.split(":")[1].strip() for line in server.run("ip", "-o", "link").splitlines()],
        "filters": server.run("virsh", "nwfilter-list").split(),
        "secrets": server.run("virsh", "secret-list").split(),
        "programs": sorted({*server.run("ps", "-e", "-o", "comm=").split()} - {"ps", "sleep"}),
        "files": sorted(str(path.relative_to(world.instances)) for path in world.instances.rglob("*")),
        "networks": sorted(path.name for path in (server.folder / "networks").glob("*/*")),
    }


@pytest.fixture(scope="module")
def machines() -> Iterator[Any]:
    with libvirt_qemu.build() as world:
        yield world


@pytest.fixture(scope="module")
def containers() -> Iterator[Any]:
    with libvirt_lxc.build() as world:
        yield world


def failing(monkeypatch: pytest.MonkeyPatch, owner: Any, step: str) -> None:
    """Have a step fail once it is done, and only once: the way back may need it again."""
    real, left = getattr(owner, step), ["no"]

    def fail(*args: Any, **kwargs: Any) -> Any:
        result = real(*args, **kwargs)
        if left:
            raise Failure(left.pop())
        return result

    monkeypatch.setattr(owner, step, fail)


def spawn_fails_and_leaves_nothing(world: World, spec: InstanceSpec) -> None:
    server = world._server  # type: ignore[attr-defined]
    before = audit(server, world)
    with pytest.raises(VirtError, match="no"):
        world.driver.spawn(spec)
    after = audit(server, world)
    cached = [name for name in after["files"] if name.startswith("_base")]
    before["files"] = sorted({*before["files"], *cached})
    assert after == before


@pytest.mark.parametrize(("owner", "step"), COMMON + MACHINE, ids=[step for _, step in COMMON + MACHINE])
def test_a_machine_whose_spawn_fails_there_leaves_nothing(machines, monkeypatch, owner, step):
    failing(monkeypatch, owner, step)
    spawn_fails_and_leaves_nothing(machines, machines.make_guest(ephemeral_gb=1, swap_mb=16))


@pytest.mark.parametrize(("owner", "step"), COMMON + CONTAINER, ids=[step for _, step in COMMON + CONTAINER])
def test_a_container_whose_spawn_fails_there_leaves_nothing(containers, monkeypatch, owner, step):
    failing(monkeypatch, owner, step)
    spawn_fails_and_leaves_nothing(containers, containers.make_guest())
