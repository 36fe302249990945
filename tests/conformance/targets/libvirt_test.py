"""The libvirt driver on libvirt's own in-process test hypervisor: real XML parsing, no guests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.builders import a_guest, a_vif, a_volume, an_image
from tests.conformance.harness import Target, TargetUnavailableError, World
from virt.network.bridges import Bridges, Claim
from virt.network.networks import Networks
from virt.spec import InstanceSpec, Network, Vif, VolumeAttachment

FOREIGN = """<domain type='test'><name>somebody-elses</name><memory>8192</memory><os><type>hvm</type></os></domain>"""
NOWHERE = "qemu+unix:///system?socket=/nonexistent"


class NoBridges(Bridges):
    """Bridges that are there already."""

    def ensure(self, network: Network, claim: Claim = lambda _thing: None) -> None:
        """Nothing to do."""

    def remove(self, network: Network, made: Collection[str]) -> bool:
        """Nothing to do."""
        return True


class TestDriverWorld(World):
    """One host on test:///default. It answers in this process, so `cut_off` swaps what connections are made by."""

    __test__ = False

    def __init__(self, folder: Path) -> None:
        import libvirt

        from virt.disk import Disks
        from virt.firewall.noop import NoopFirewall
        from virt.images import ImageCache
        from virt.libvirt.build import Builder
        from virt.libvirt.domain import Platform
        from virt.libvirt.driver import LibvirtDriver
        from virt.libvirt.host import Host

        self._libvirt, self._reachable = libvirt, True
        self.connection = libvirt.open("test:///default")  # the last connection to close takes the guests along
        self.images, self.instances = folder / "images", folder / "instances"
        self.images.mkdir()
        (self.images / "root").write_bytes(b"content" + bytes(1024**2))
        cache = ImageCache(self.instances / "_base", self.images)
        self.host = Host("test:///default", connect=self._connect)
        self.driver = LibvirtDriver(
            self.host,
            Platform(type="test", arch="", cluster="conformance"),
            Builder(self.instances, cache, Disks()),
            networks=Networks(NoBridges(), folder / "networks"),
            firewall=NoopFirewall(),
        )
        self.driver.init_host(self.this_host)

    def _connect(self, uri: str) -> Any:
        return self._libvirt.open(uri if self._reachable else NOWHERE)

    def make_guest(self, **changes: Any) -> InstanceSpec:
        image = an_image(location=str(self.images / "root"))
        return a_guest(**({"image": image, "vifs": (self.make_vif(),), "memory_mb": 64} | changes))

    def broken_guest(self, **changes: Any) -> InstanceSpec:
        return self.make_guest(**({"image": an_image(location=str(self.images / "nowhere"))} | changes))

    def make_volume(self, **changes: Any) -> VolumeAttachment:
        return a_volume(**changes)

    def make_vif(self) -> Vif:
        return a_vif()

    def make_foreign_guest(self) -> str:
        self.connection.defineXML(FOREIGN)
        return "somebody-elses"

    def leftovers(self, spec: InstanceSpec) -> list[str]:
        domains = [domain.name() for domain in self.connection.listAllDomains()]
        found = ["domain"] if spec.name in domains else []
        return found + [path.name for path in self.instances.glob(f"{spec.name}*")]

    def shut_down_inside(self, name: str) -> None:
        self.connection.lookupByName(name).destroy()

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        self._reachable = False
        self.host.close()
        yield
        self._reachable = True
        self.host.forgive()

    def leave_files(self, spec: InstanceSpec) -> None:
        (self.instances / spec.name).mkdir(parents=True)
        (self.instances / spec.name / "disk").write_bytes(b"left")

    def contents(self, name: str) -> str:
        facts = (self.instances / name / "disk").stat()
        return f"{facts.st_ino} {facts.st_size}"

    def close(self) -> None:
        self.driver.close()
        for domain in self.connection.listAllDomains():
            if domain.name() != "test":
                if domain.isActive():
                    domain.destroy()
                domain.undefineFlags(self._libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)
        self.connection.close()


@contextmanager
def build() -> Iterator[TestDriverWorld]:
    """A world in a scratch folder."""
    try:
        import libvirt  # noqa: F401 - only to see whether it is there
    except ImportError as exc:
        raise TargetUnavailableError("libvirt-python is not installed") from exc
    if shutil.which("qemu-img") is None:
        raise TargetUnavailableError("qemu-img is not installed")
    with tempfile.TemporaryDirectory() as path:
        world = TestDriverWorld(Path(path))
        yield world
        world.close()


NO_FILTERS = frozenset({"FiltersTraffic"})  # the worlds of libvirt have a firewall that lets everything pass
UNABLE = frozenset({"Snapshots", "AttachesVolumes", "AttachesNics"})  # it has no backup jobs and no hot plug

TARGETS = [
    Target(
        name="libvirt-test",
        build=build,
        unable=UNABLE | NO_FILTERS,
        missing_helpers=frozenset({"second", "share_storage", "make_deaf", "wait_for_agent", "lose_events"}),
    ),
]
