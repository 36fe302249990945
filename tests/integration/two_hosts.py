"""Two compute hosts beside each other: namespaces with a libvirtd each, joined by a wire, with disks of their own."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from compute.api import Accepted
from db import images, instance_types
from tests.functional.harness import Daemon
from tests.integration.conftest import GuestImage
from tests.integration.servers import LibvirtHost, running, scratch_folder
from tests.integration.sites import Site

ADDRESSES = ("10.7.0.1", "10.7.0.2")
INSTANCES = Path("/var/lib/libvirt/instances")  # each host has a folder of its own there
OPTIONS = {
    "compute_driver": "libvirt",
    "libvirt_uri": "qemu:///system",
    "libvirt_type": "qemu",
    "instances_path": INSTANCES,
    "network_manager": "flat",
    "shutdown_timeout": 20,
    "live_migration_uri": "qemu+tcp://%s/system",
    "live_migration_tls": False,
}


class HostDaemon(Daemon):
    """A daemon inside of a host; whoever signals it means the process within, not the one that led it there."""

    def end(self, number: int = signal.SIGTERM, timeout_s: float = 60.0) -> int:
        assert self.process is not None
        (inner,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        os.kill(int(inner), number)
        return self.process.wait(timeout_s)


class Pair(Site):
    """The deployment on the two hosts."""

    hosts: dict[str, LibvirtHost]

    def serve(self, image: GuestImage, **hosts: LibvirtHost) -> Pair:
        self.hosts = hosts
        self.db.run(stock, image)
        for (name, host), address in zip(hosts.items(), ADDRESSES, strict=True):
            options = {**self.given, **OPTIONS, "my_ip": address, "images_path": image.kernel.parent}
            self.daemons[name] = HostDaemon(self.directory, name, inside=host.inside(), **options)
        return self

    def done(self, accepted: Accepted, timeout_s: float = 120.0) -> dict[str, Any]:
        """The ended order; a real guest on a busy machine takes its time."""
        return super().done(accepted, timeout_s)

    def folder(self, host: str) -> Path:
        """A host's instances, as they are seen from outside."""
        return self.hosts[host].folder / "lib/instances"

    def console(self, host: str, name: str) -> str:
        log = self.folder(host) / name / "console.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def counts(self, host: str, name: str) -> list[int]:
        """What the guest has counted on this host's console."""
        return [int(count) for count in re.findall(r"COUNT (\d+)\n", self.console(host, name))]

    def boots(self, host: str, name: str) -> int:
        """How often the guest's root disk had been booted, by what it last said on this host; 0 when it did not say."""
        return max([0, *(int(boots) for boots in re.findall(r"BOOTS (\d+)\n", self.console(host, name)))])

    def guests(self, host: str) -> list[str]:
        return self.hosts[host].run("virsh", "list", "--all", "--name").split()

    def leftovers(self, host: str, name: str) -> list[str]:
        """Whatever a host still has of a guest."""
        files = [path.name for path in self.folder(host).glob(f"{name}*")]
        taps = re.findall(r"tap\w+", self.hosts[host].run("ip", "-o", "link"))
        pools = self.hosts[host].run("virsh", "pool-list", "--all", "--name").split()
        return [*files, *taps, *pools, *(guest for guest in self.guests(host) if guest == name)]


def stock(tx: Any, image: GuestImage) -> None:
    made = partial(images.create, tx, status="active", is_public=True, properties={})
    kernel = made(name="kernel", disk_format="aki", location=str(image.kernel))
    ramdisk = made(name="ramdisk", disk_format="ari", location=str(image.ramdisk))
    made(name="little", disk_format="raw", location=str(image.root), kernel_id=kernel, ramdisk_id=ramdisk)
    for number, (name, memory_mb, local_gb) in enumerate((("nano", 112, 0), ("micro", 128, 1))):
        instance_types.create(
            tx, name=name, memory_mb=memory_mb, vcpus=1, local_gb=local_gb, flavorid=str(900 + number)
        )


def join(one: LibvirtHost, other: LibvirtHost) -> None:
    """Lay a wire between two hosts, over which they reach each other at ADDRESSES."""
    ends = ["wire", "netns", str(one.pid), "type", "veth", "peer", "name", "wire", "netns", str(other.pid)]
    subprocess.run(["ip", "link", "add", *ends], check=True, capture_output=True, timeout=30)
    for host, address in zip((one, other), ADDRESSES, strict=True):
        host.run("ip", "address", "add", f"{address}/24", "dev", "wire")
        host.run("ip", "link", "set", "wire", "up")


def hide(host: LibvirtHost, path: Path, behind: Path) -> None:
    """Have `path` be `behind` within a host: what looks like one folder on two hosts is two."""
    behind.mkdir(parents=True, exist_ok=True)
    path.mkdir(parents=True, exist_ok=True)
    host.run("mount", "--bind", str(behind), str(path))


@contextlib.contextmanager
def second_host(first: LibvirtHost, name: str) -> Iterator[LibvirtHost]:
    """Another host of the same kind, joined with the first."""
    kind = functools.partial(LibvirtHost, name=name, network=True, unprivileged=first.unprivileged)
    with running(kind) as host:
        join(first, host)
        yield host


@contextlib.contextmanager
def a_pair(image: GuestImage, **options: Any) -> Iterator[Pair]:
    """Hosts `alpha` and `beta`, joined; nothing is served yet."""
    with ExitStack() as stack:
        alpha = stack.enter_context(running(partial(LibvirtHost, name="alpha", network=True, unprivileged=True)))
        beta = stack.enter_context(second_host(alpha, "beta"))
        folder = stack.enter_context(scratch_folder())
        site = Pair(folder, f"sqlite:///{folder}/bus.sqlite", f"sqlite:///{folder}/nova.sqlite", **options)
        stack.enter_context(site)
        yield site.serve(image, alpha=alpha, beta=beta)
