"""Volumes of real guests by order: booted from, written by one guest and read by the next, rescued, and ended."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.harness import Daemon, eventually
from tests.integration.conftest import GuestImage
from tests.integration.libvirt.volume_servers import nbd
from tests.integration.servers import LibvirtHost
from tests.integration.test_first_guest import Operator

# says what it finds on the volume of this serial, and leaves its own name there
SCRIPT = """#!/bin/sh
disk=/dev/$(grep -l '^vol-00000002$' /sys/block/vd*/serial | cut -d/ -f4)
echo "found $(head -c 64 $disk | tr -d '\\0')"
hostname | dd of=$disk bs=512 count=1 conv=sync,fsync 2>/dev/null
"""


@pytest.fixture
def operator(libvirt_host: LibvirtHost, guest_image: GuestImage, tmp_path: Path) -> Iterator[Operator]:
    """A host with a daemon on libvirt, a small flavor, and an image to rescue with."""
    daemon = Daemon(
        tmp_path, "hosta", compute_driver="libvirt", libvirt_uri=libvirt_host.uri, libvirt_type="qemu",
        rescue_image_id="medic", stub_network=True,
    )  # fmt: skip
    operator = Operator(daemon.write_config())
    operator("db", "sync")
    operator("image", "add", "--name", "medic", "--location", str(guest_image.disk), "--disk_format", "qcow2")
    operator("instance_type", "create", "m1.nano", "112", "1", "0", "99")
    (tmp_path / "script").write_text(SCRIPT)
    with daemon:
        yield operator


def boots(operator: Operator, name: str, tmp_path: Path, more: str = "") -> None:
    """Boot from volume 1 with volume 2 beside it, and wait until the guest is ready."""
    disks = ["--block_device_mapping", f"/dev/vda=1{more}", "--block_device_mapping", "/dev/vdb=2"]
    tail = ["--user-data", str(tmp_path / "script"), "--wait"]
    operator("vm", "boot", "--name", name, "--instance_type", "m1.nano", *disks, *tail)
    says(operator, name, "GUEST-READY")


def says(operator: Operator, name: str, marker: str, times: int = 1) -> None:
    """Wait until the guest has printed this."""
    eventually(lambda: operator("vm", "console_log", name).count(marker) >= times, 150, f"{marker} of {name}")


@pytest.fixture
def root(operator: Operator, guest_image: GuestImage, tmp_path: Path) -> Iterator[Path]:
    """The file of volume 1, which has the little guest on it; volume 2 is empty and on an NBD server."""
    file = Path(operator.ask("volume", "create", "1")["location"].removeprefix("file:"))
    subprocess.run(["qemu-img", "convert", "-n", "-O", "raw", guest_image.disk, file], check=True)
    (tmp_path / "data").write_bytes(bytes(1 << 20))
    with nbd(tmp_path / "data", tmp_path, "tcp") as (source, _server):
        operator("volume", "create", "1", "--connection", f"nbd:{source}")
        yield file


def test_a_guest_boots_from_a_volume_and_the_next_finds_what_it_left(
    operator: Operator, root: Path, libvirt_host: LibvirtHost, tmp_path: Path
) -> None:
    boots(operator, "one", tmp_path)
    is_rescued(operator, "one")
    operator("vm", "delete", "one", "--wait")
    assert {one["status"] for one in operator.ask("volume", "list")} == {"available"}
    boots(operator, "two", tmp_path, ":::1")
    says(operator, "two", "USER-DATA found one")
    says(operator, "two", "BOOTS 2")
    operator("vm", "delete", "two", "--wait")
    assert ([one["id"] for one in operator.ask("volume", "list")], root.exists()) == ([2], False)
    assert [entry.name for entry in (tmp_path / "instances").iterdir()] == ["_base"]
    assert libvirt_host.run("virsh", "list", "--all", "--name").strip() == ""


def is_rescued(operator: Operator, name: str) -> None:
    """Boot the guest from the rescue image, and see that its volume is the second disk."""
    operator("vm", "rescue", name, "--wait")
    says(operator, name, "GUEST-READY", times=2)
    disks = [line for line in operator("vm", "console_log", name).splitlines() if line.startswith("DISKS")]
    assert "-rescue vdb:2097152:vol-00000001" in disks[-1]
