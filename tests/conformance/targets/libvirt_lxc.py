"""The libvirt driver for containers, on real ones."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.builders import a_guest, a_network, a_vif, a_volume, an_image
from tests.conformance.harness import Target, World
from tests.conformance.targets.libvirt_test import NO_FILTERS
from tests.integration.containers import container_image
from tests.integration.processes import require_program
from tests.integration.servers import LibvirtHost, running
from virt.spec import InstanceSpec, Vif, VolumeAttachment

FOREIGN = """<domain type='lxc'><name>somebody-elses</name><memory>8192</memory><os><type>exe</type><init>/x</init></os>
<devices><filesystem type='mount'><source dir='/nowhere'/><target dir='/'/></filesystem></devices></domain>"""


class LxcWorld(World):
    """One host with a network of its own."""

    def __init__(self, server: LibvirtHost) -> None:
        from virt.disk import Disks
        from virt.firewall.noop import NoopFirewall
        from virt.images import ImageCache
        from virt.libvirt.domain import Platform
        from virt.libvirt.host import Host
        from virt.libvirt.lxc import LxcDriver
        from virt.libvirt.lxc_build import ContainerBuilder
        from virt.network.bridges import Bridges
        from virt.network.networks import Networks

        self._server = server
        self.image = container_image(server.folder)
        self.instances = server.folder / "state/instances"
        self._host = Host(server.lxc_uri)
        self.driver = LxcDriver(
            self._host,
            Platform(type="lxc", arch="", cluster="conformance"),
            ContainerBuilder(self.instances, ImageCache(self.instances / "_base", server.folder), Disks()),
            networks=Networks(Bridges(netns=f"/proc/{server.pid}/ns/net"), server.folder / "networks"),
            firewall=NoopFirewall(),
        )
        self.driver.init_host(self.this_host)

    def _virsh(self, *words: str) -> str:
        return self._server.run("virsh", "-c", "lxc:///system", *words)

    def make_guest(self, **changes: Any) -> InstanceSpec:
        image = an_image(location=str(self.image), disk_format="tar")
        return a_guest(**({"image": image, "vifs": (self.make_vif(),), "memory_mb": 64} | changes))

    def broken_guest(self, **changes: Any) -> InstanceSpec:
        missing = an_image(location=str(self._server.folder / "nowhere"), disk_format="tar")
        return self.make_guest(**({"image": missing} | changes))

    def make_volume(self, **changes: Any) -> VolumeAttachment:
        return a_volume(**changes)

    def make_vif(self) -> Vif:
        return a_vif(network=a_network(bridge="br-conformance"))

    def make_foreign_guest(self) -> str:
        if "somebody-elses" not in self._virsh("list", "--all", "--name").split():
            (self._server.folder / "foreign.xml").write_text(FOREIGN)
            self._virsh("define", str(self._server.folder / "foreign.xml"))
        return "somebody-elses"

    def leftovers(self, spec: InstanceSpec) -> list[str]:
        taps = self._server.run("ip", "-o", "link")
        found = ["domain"] if spec.name in self._virsh("list", "--all", "--name").split() else []
        found += [vif.dev for vif in spec.vifs if vif.dev in taps]
        return found + [path.name for path in self.instances.glob(f"{spec.name}*")]

    def shut_down_inside(self, name: str) -> None:
        self._virsh("destroy", name)

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        self._server.stop_libvirtd()
        yield
        self._server.start_libvirtd()
        self._host.forgive()

    def leave_files(self, spec: InstanceSpec) -> None:
        (self.instances / spec.name / "rootfs").mkdir(parents=True)
        (self.instances / spec.name / "rootfs/left").write_bytes(b"left")

    def lose_events(self) -> None:
        self._server.restart_libvirtd()
        self._host.forgive()

    def contents(self, name: str) -> str:
        return str((self.instances / name / "rootfs/sbin/init").stat().st_ino)


@contextmanager
def build() -> Iterator[LxcWorld]:
    """A host in namespaces of its own."""
    require_program("libvirt_lxc")
    with running(functools.partial(LibvirtHost, name="containers", network=True)) as server:
        world = LxcWorld(server)
        yield world
        world.driver.close()


MISSING = frozenset(
    {
        "Suspendable", "Rescuable", "Resizable", "LiveMigratable", "SharesStorage", "Snapshots", "AttachesVolumes",
        "BootsFromVolumes", "InjectsGuest", "ReportsUsage",
    }
)  # fmt: skip

TARGETS = [
    Target(
        name="libvirt-lxc",
        build=build,
        missing=MISSING,
        unable=NO_FILTERS,
        unable_methods=frozenset({"get_vnc_console"}),
        missing_helpers=frozenset({"second", "make_deaf", "wait_for_agent"}),
        shared=True,
        marks=(pytest.mark.real,),
    ),
]
