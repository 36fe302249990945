"""One real guest on a host of its own with a daemon, filtered by the firewall that a test is about."""

from __future__ import annotations

import functools
import subprocess
import sys
from contextlib import contextmanager

from tests.functional.harness import Daemon
from tests.integration.network.places import end_all_in, places, wire
from tests.integration.operators import Operator
from tests.integration.servers import LibvirtHost, running, scratch_folder

CIDR, NEIGHBOUR = "10.97.0.0/24", "10.97.0.200"
BOOT_S = 150


class Lab:
    """A host with its daemon and operator, somebody outside, and a neighbour of the guests. flags: the daemon's."""

    def __init__(self, host, outside, neighbour, folder, **flags):
        self.host, self.outside, self.neighbour = host, outside, neighbour
        self.netns = f"/proc/{host.pid}/ns/net"
        self.daemon = Daemon(
            folder, "hosta", inside=["nsenter", f"--net={self.netns}", "--"], compute_driver="libvirt",
            libvirt_uri=host.uri, libvirt_type="qemu", networks_path=folder / "networks", filter_audit_interval=2,
            **flags,
        )  # fmt: skip
        self.operate = Operator(self.daemon.write_config())

    @property
    def address(self):
        """The guest's."""
        return self.operate.ask("vm", "show", "one")["addresses"][0]["address"]


class RoutedLab(Lab):
    """A host that routes to its guests, whom it gives their addresses by DHCP."""

    def reached(self):
        """Who gets an answer: to a ping from outside and from the neighbour, to HTTP from outside and the neighbour."""
        address, both = self.address, (self.outside, self.neighbour)
        connect = f"import socket; socket.create_connection(({address!r}, 80), 2)"
        asked = [("busybox", "ping", "-c", "1", "-W", "2", address), (sys.executable, "-c", connect)]
        tasks = [
            subprocess.Popen(place.command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for words in asked
            for place in both
        ]
        return [task.wait(60) == 0 for task in tasks]


@contextmanager
def furnished(kind, image, **flags):
    """A lab of this kind, wired, with the image, a flavor and a network, and its daemon running."""
    host_kind = functools.partial(LibvirtHost, name="filtered", network=True)
    with scratch_folder() as folder, places(2) as (outside, neighbour), running(host_kind) as host:
        _connect(host, outside, neighbour)
        lab = kind(host, outside, neighbour, folder, **flags)
        _furnish(lab.operate, image)
        try:
            with lab.daemon:
                yield lab
        finally:
            end_all_in(lab.netns)


def _connect(host, outside, neighbour):
    wire(host, "out", outside, "eth0")
    host.run("ip", "addr", "add", "192.0.2.1/24", "dev", "out")
    outside.run("ip", "addr", "add", "192.0.2.2/24", "dev", "eth0")
    outside.run("ip", "route", "add", CIDR, "via", "192.0.2.1")
    wire(host, "cable", neighbour, "eth0")
    host.run("ip", "link", "add", "br97", "type", "bridge", "forward_delay", "0")
    host.run("ip", "link", "set", "cable", "master", "br97")
    host.run("ip", "link", "set", "br97", "up")
    neighbour.run("ip", "addr", "add", f"{NEIGHBOUR}/24", "dev", "eth0")


def _furnish(operate, image):
    operate("db", "sync")
    for part, disk_format in {"kernel": "aki", "ramdisk": "ari"}.items():
        operate("image", "add", "--name", part, "--location", str(getattr(image, part)), "--disk_format", disk_format)
    tail = ["--disk_format", "raw", "--kernel", "kernel", "--ramdisk", "ramdisk"]
    operate("image", "add", "--name", "tiny", "--location", str(image.root), *tail)
    operate("instance_type", "create", "m1.nano", "112", "1", "0", "99")
    operate("network", "create", "private", CIDR, "--bridge", "br97")


def rule_of(lab, protocol):
    (found,) = [
        rule for rule in lab.operate.ask("secgroup", "show", "default")["rules"] if rule["protocol"] == protocol
    ]
    return str(found["id"])
