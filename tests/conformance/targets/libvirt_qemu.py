"""The libvirt driver on real QEMU guests, emulated."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.builders import a_guest, a_network, a_vif, a_volume, an_image
from tests.conformance.harness import Target, World
from tests.conformance.targets.libvirt_test import MISSING
from tests.integration.processes import require_program, wait_until
from tests.integration.servers import REPOSITORY, LibvirtHost, running
from virt.spec import InstanceSpec, Vif, VolumeAttachment

FOREIGN = """<domain type='qemu'><name>somebody-elses</name><memory>8192</memory><os><type>hvm</type></os></domain>"""
GUEST = REPOSITORY / ".state/guest"


class QemuWorld(World):
    """One host with a network of its own."""

    def __init__(self, server: LibvirtHost) -> None:
        from virt.disk import Disks
        from virt.firewall.noop import NoopFirewall
        from virt.images import ImageCache
        from virt.libvirt.build import Builder
        from virt.libvirt.domain import Platform
        from virt.libvirt.driver import LibvirtDriver
        from virt.libvirt.host import Host
        from virt.network import Bridges

        self._server = server
        self.instances = server.folder / "state/instances"
        self._host = Host(server.uri)
        self.driver = LibvirtDriver(
            self._host,
            Platform(type="qemu", arch="", cluster="conformance"),
            Builder(self.instances, ImageCache(self.instances / "_base", GUEST), Disks()),
            networks=Bridges(netns=f"/proc/{server.pid}/ns/net"),
            firewall=NoopFirewall(),
        )
        self.driver.init_host(self.this_host)

    def make_guest(self, **changes: Any) -> InstanceSpec:
        image = an_image(location=str(GUEST / "disk.qcow2"), disk_format="qcow2")
        return a_guest(**({"image": image, "vifs": (self.make_vif(),), "memory_mb": 112} | changes))

    def broken_guest(self, **changes: Any) -> InstanceSpec:
        return self.make_guest(**({"image": an_image(location=str(GUEST / "nowhere"))} | changes))

    def make_volume(self, **changes: Any) -> VolumeAttachment:
        volume = a_volume(**changes)
        path = self._server.folder / volume.serial
        path.write_bytes(bytes(1024**2))
        return replace(volume, connection={"protocol": "file", "source": str(path)})

    def make_vif(self) -> Vif:
        return a_vif(network=a_network(bridge="br-conformance"))

    def make_foreign_guest(self) -> str:
        if "somebody-elses" not in self._server.run("virsh", "list", "--all", "--name").split():
            (self._server.folder / "foreign.xml").write_text(FOREIGN)
            self._server.run("virsh", "define", str(self._server.folder / "foreign.xml"))
        return "somebody-elses"

    def leftovers(self, spec: InstanceSpec) -> list[str]:
        domains = self._server.run("virsh", "list", "--all", "--name").split()
        taps = self._server.run("ip", "-o", "link")
        found = ["domain"] if spec.name in domains else []
        found += [vif.dev for vif in spec.vifs if vif.dev in taps]
        return found + [path.name for path in self.instances.glob(f"{spec.name}*")]

    def shut_down_inside(self, name: str) -> None:
        self._server.run("virsh", "destroy", name)

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        self._server.stop_libvirtd()
        yield
        self._server.start_libvirtd()
        self._host.forgive()

    def wait_for_agent(self, spec: InstanceSpec) -> None:
        def answers() -> bool:
            try:
                self._server.run("virsh", "qemu-agent-command", spec.name, '{"execute": "guest-ping"}')
            except RuntimeError:
                return False
            return True

        wait_until(answers, 10, f"the agent in {spec.name}")

    def contents(self, name: str) -> str:
        facts = (self.instances / name / "disk").stat()
        return f"{facts.st_ino} {(self.instances / name / 'disk.base').stat().st_ino}"

    def make_deaf(self, name: str) -> None:
        """A guest that has just been started is: its kernel does not run yet."""


@contextmanager
def build() -> Iterator[QemuWorld]:
    """A host in namespaces of its own; the little guest is built when it is not there."""
    for program in ("busybox", "mkfs.ext4", "qemu-ga", "qemu-img"):
        require_program(program)
    subprocess.run([REPOSITORY / "etc/guest/build", GUEST], check=True, capture_output=True, timeout=300)
    with running(functools.partial(LibvirtHost, name="conformance", network=True)) as server:
        world = QemuWorld(server)
        yield world
        world.driver.close()


TARGETS = [
    Target(
        name="libvirt-qemu",
        build=build,
        missing=MISSING,
        missing_helpers=frozenset({"second"}),
        shared=True,
        marks=(pytest.mark.real,),
    ),
]
