"""From the command line to a running QEMU guest and back to nothing, through daemon, bus, database and libvirt."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.harness import Daemon, eventually
from tests.integration.conftest import GuestImage
from tests.integration.operators import Operator
from tests.integration.servers import LibvirtHost

BRIDGE = f"brfg{os.getpid() % 100000}"


@pytest.fixture
def operator(libvirt_host: LibvirtHost, guest_image: GuestImage, tmp_path: Path) -> Iterator[Operator]:
    """A host with a daemon on libvirt, the little guest's images, a small flavor and a network."""
    daemon = Daemon(
        tmp_path, "hosta", compute_driver="libvirt", libvirt_uri=libvirt_host.uri, libvirt_type="qemu"
    )  # fmt: skip
    operator = Operator(daemon.write_config())
    operator("db", "sync")
    parts = {"kernel": "aki", "ramdisk": "ari"}
    for part, disk_format in parts.items():
        path = getattr(guest_image, part)
        operator("image", "add", "--name", part, "--location", str(path), "--disk_format", disk_format)
    tail = ["--disk_format", "raw", "--kernel", "kernel", "--ramdisk", "ramdisk"]
    operator("image", "add", "--name", "tiny", "--location", str(guest_image.root), *tail)
    operator("instance_type", "create", "m1.nano", "112", "1", "0", "99")
    operator("network", "create", "private", "10.99.0.0/24", "--bridge", BRIDGE)
    with daemon:
        yield operator
    subprocess.run(["ip", "link", "delete", BRIDGE], check=False, capture_output=True)


def test_a_guest_boots_shows_its_console_and_leaves_nothing(
    operator: Operator, libvirt_host: LibvirtHost, tmp_path: Path
) -> None:
    operator("vm", "boot", "--name", "one", "--instance_type", "m1.nano", "--image", "tiny", "--wait")
    (vm,) = operator.ask("vm", "list")
    assert (vm["vm_state"], vm["power_state"]) == ("active", "running")
    eventually(lambda: "GUEST-READY" in operator("vm", "console_log", "one"), 150, "the guest's marker")
    assert qemu_of(vm["uuid"])
    operator("vm", "delete", "one", "--wait")
    assert operator.ask("vm", "list") == []
    assert not qemu_of(vm["uuid"])
    assert libvirt_host.run("virsh", "list", "--all", "--name").strip() == ""
    assert [entry.name for entry in (tmp_path / "instances").iterdir()] == ["_base"]
    assert not any(link.startswith("tap") for link in ports_of(BRIDGE))
    assert operator.ask("network", "list")[0]["held"] == 0


def test_a_guest_stops_and_starts_by_order(operator: Operator) -> None:
    operator("vm", "boot", "--name", "two", "--instance_type", "m1.nano", "--image", "tiny", "--wait")
    eventually(lambda: "GUEST-READY" in operator("vm", "console_log", "two"), 150, "the guest's marker")
    operator("vm", "stop", "two", "--wait", "--timeout", "120")
    assert operator.ask("vm", "show", "two")["power_state"] == "shutdown"
    operator("vm", "start", "two", "--wait")
    assert operator.ask("vm", "show", "two")["power_state"] == "running"
    operator("vm", "delete", "two", "--wait")


def qemu_of(uuid: str) -> bool:
    """True while a QEMU process has this uuid on its command line."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if uuid.encode() in entry.read_bytes() and b"qemu" in entry.read_bytes():
                return True
        except OSError:
            continue
    return False


def ports_of(bridge: str) -> list[str]:
    """The interfaces in a bridge."""
    return [port.name for port in Path(f"/sys/class/net/{bridge}/brif").glob("*")]
