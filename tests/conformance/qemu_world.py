"""The world of the libvirt driver on real QEMU guests: two hosts in namespaces, with disks of their own."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.builders import a_guest, a_network, a_vif, a_volume, an_image
from tests.conformance.harness import World
from tests.integration.processes import wait_until
from tests.integration.servers import REPOSITORY, LibvirtHost
from tests.integration.two_hosts import ADDRESSES, hide, second_host
from virt.disk import Disks
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
from virt.spec import InstanceSpec, Vif, VolumeAttachment

FOREIGN = """<domain type='qemu'><name>somebody-elses</name><memory>8192</memory><os><type>hvm</type></os></domain>"""
GUEST = REPOSITORY / ".state/guest"


class QemuWorld(World):
    """One host with a network of its own, and when it is asked for another one."""

    other_host = ADDRESSES[1]

    def __init__(self, server: LibvirtHost, stack: ExitStack) -> None:
        self._server, self._stack = server, stack
        self.instances = server.folder / "state/instances"
        self._other: tuple[LibvirtHost, LibvirtDriver] | None = None
        self._host, self.driver = self._driver_of(server)
        self.driver.init_host(self.this_host)

    def _driver_of(self, server: LibvirtHost) -> tuple[Host, LibvirtDriver]:
        host, instances = Host(server.uri), server.folder / "state/instances"
        driver = LibvirtDriver(
            host,
            Platform(type="qemu", arch="", cluster="conformance"),
            Builder(instances, ImageCache(instances / "_base", GUEST), Disks()),
            networks=Networks(Bridges(netns=f"/proc/{server.pid}/ns/net"), server.folder / "networks"),
            firewall=NoopFirewall(),
            peers=Peers("qemu+tcp://%s/system", connect=self._connect),
            manner=Manner(tls=False),
        )
        return host, driver

    def _connect(self, uri: str) -> Any:
        """The drivers are outside of the hosts, where the wire between them does not reach."""
        return open_libvirt(self._other[0].uri if self._other and self.other_host in uri else uri)

    def second(self) -> LibvirtDriver:
        if self._other is None:
            server = self._stack.enter_context(second_host(self._server, "conformance2"))
            _, driver = self._driver_of(server)
            driver.init_host("other")
            self._stack.callback(driver.close)
            hide(server, self.instances, server.folder / "state/instances")
            self._other = (server, driver)
        return self._other[1]

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

    def lose_events(self) -> None:
        self._server.restart_libvirtd()
        self._host.forgive()

    def leave_files(self, spec: InstanceSpec) -> None:
        (self.instances / spec.name).mkdir(parents=True)
        (self.instances / spec.name / "disk").write_bytes(b"left")

    def contents(self, name: str) -> str:
        """The start of the disk, where the boot loader is and nothing writes."""
        folders = [self.instances, *([self._other[0].folder / "state/instances"] if self._other else [])]
        disk = next(path for folder in folders if (path := folder / name / "disk").exists())
        with tempfile.TemporaryDirectory() as scratch:
            start = Path(scratch) / "start"
            command = ["qemu-img", "dd", "-U", "-f", "qcow2", "-O", "raw", "bs=512", "count=16", f"if={disk}"]
            subprocess.run([*command, f"of={start}"], check=True, capture_output=True)
            return hashlib.sha256(start.read_bytes()).hexdigest()

    def make_deaf(self, name: str) -> None:
        """A guest that has just been started is: its kernel does not run yet."""
