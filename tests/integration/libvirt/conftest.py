"""A driver on a libvirtd of its own, and the little guest in its forms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from tests.builders import a_guest, an_image
from tests.integration.conftest import GuestImage
from tests.integration.processes import wait_until
from tests.integration.servers import LibvirtHost
from virt.libvirt.driver import LibvirtDriver
from virt.spec import InstanceSpec

MEMORY_MB = 112


def configuration(host: LibvirtHost, image: GuestImage) -> cfg.ConfigOpts:
    """The configuration that an operator would write for this host."""
    made = cfg.ConfigOpts()
    made([], project="test")
    state = host.folder / "state"
    made.register_opts([cfg.StrOpt("state_path", default=str(state))])
    LibvirtDriver.from_conf(made)
    made.set_override("libvirt_uri", host.uri)
    made.set_override("images_path", str(image.kernel.parent))
    return made


@pytest.fixture
def conf(libvirt_host: LibvirtHost, guest_image: GuestImage) -> cfg.ConfigOpts:
    """A configuration that a test may change."""
    return configuration(libvirt_host, guest_image)


@pytest.fixture
def driver(conf: cfg.ConfigOpts) -> Iterator[LibvirtDriver]:
    """A connected driver; guests that a test leaves are removed."""
    made = LibvirtDriver.from_conf(conf)
    made.init_host("hosta")
    yield made
    made.close()


class Guests:
    """Specs of the little guest, and what it says."""

    def __init__(self, driver: LibvirtDriver, image: GuestImage, instances: Path) -> None:
        self._driver, self._image, self._instances = driver, image, instances
        self.specs: list[InstanceSpec] = []

    def with_kernel(self, **changes: Any) -> InstanceSpec:
        """Boots kernel and ramdisk and mounts its root disk."""
        given = {
            "image": self._file("root", "raw"),
            "kernel": self._file("kernel", "aki"),
            "ramdisk": self._file("ramdisk", "ari"),
        }
        return self._spec(**(given | changes))

    def with_disk(self, **changes: Any) -> InstanceSpec:
        """Boots from its disk."""
        return self._spec(**({"image": self._file("disk", "qcow2")} | changes))

    def console(self, spec: InstanceSpec) -> str:
        """Everything the guest printed."""
        log = self._instances / spec.name / "console.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def wait_for(self, spec: InstanceSpec, marker: str, usual_s: float = 10, times: int = 1) -> None:
        """Wait until the guest has printed this so many times."""
        wait_until(lambda: self.console(spec).count(marker) >= times, usual_s, f"{marker} on {spec.name}'s console")

    def _file(self, name: str, disk_format: str) -> Any:
        return an_image(name=name, location=str(getattr(self._image, name)), disk_format=disk_format)

    def _spec(self, **changes: Any) -> InstanceSpec:
        self.specs.append(a_guest(**({"vifs": (), "memory_mb": MEMORY_MB} | changes)))
        return self.specs[-1]


@dataclass(frozen=True, slots=True)
class Booted:
    """A guest that has booted, with what is needed to deal with it."""

    driver: LibvirtDriver
    guests: Guests
    spec: InstanceSpec
    host: LibvirtHost
    conf: cfg.ConfigOpts

    def definitions(self, *options: str) -> str:
        """The guest as it runs, and as it is defined."""
        return "".join(
            self.host.run("virsh", "dumpxml", self.spec.name, *more, *options) for more in ((), ("--inactive",))
        )

    def count(self, text: str) -> int:
        """How often a text is in them."""
        return self.definitions().count(text)

    def boots_again(self, start: Callable[[], None]) -> None:
        """Start the guest anew, and wait until it is ready."""
        times = self.guests.console(self.spec).count("GUEST-READY")
        start()
        self.guests.wait_for(self.spec, "GUEST-READY", times=times + 1)


@pytest.fixture(scope="module")
def booted(libvirt_host: LibvirtHost, guest_image: GuestImage) -> Iterator[Booted]:
    """A guest with a kernel for all tests of a module, which leave it as they found it."""
    conf = configuration(libvirt_host, guest_image)
    driver = LibvirtDriver.from_conf(conf)
    driver.init_host("hosta")
    guests = Guests(driver, guest_image, Path(conf.instances_path))
    spec = guests.with_kernel()
    driver.spawn(spec)
    guests.wait_for(spec, "GUEST-READY")
    yield Booted(driver, guests, spec, libvirt_host, conf)
    driver.destroy(spec)
    driver.close()


@pytest.fixture
def guests(driver: LibvirtDriver, guest_image: GuestImage, conf: cfg.ConfigOpts) -> Iterator[Guests]:
    """A maker of guests, all removed at the end."""
    made = Guests(driver, guest_image, Path(conf.instances_path))
    yield made
    for spec in made.specs:
        driver.destroy(spec)


Guest = Callable[..., InstanceSpec]
