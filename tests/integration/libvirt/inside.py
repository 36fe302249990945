"""What tests do inside a real guest: type on its serial console, and read what it prints."""

from __future__ import annotations

import itertools
import socket
from pathlib import Path

from virt.libvirt.driver import LibvirtDriver
from virt.spec import InstanceSpec

SECTOR = 512
_ANNOUNCED = ("DISKS ", "NICS ")  # what the guest says of itself when devices come and go, perhaps just now
_numbers = itertools.count(1)


def run_inside(driver: LibvirtDriver, spec: InstanceSpec, command: str) -> str:
    """What a command prints in the guest, which has printed GUEST-READY."""
    door, number = driver.get_ajax_console(spec), next(_numbers)
    with socket.create_connection((door.host, door.port), timeout=60) as console:
        # the command's own echo on the console must not look like its end, so the shell puts the words together
        line = f"echo ST''ART-{number}; {command}; echo EN''D-{number}"
        console.sendall(f"{door.token}\n{line}\n".encode())
        heard = b""
        while f"END-{number}\r".encode() not in heard:
            heard += console.recv(4096)
    text = heard.decode(errors="replace")
    said = text[text.index(f"START-{number}\r") : text.rindex(f"END-{number}")].partition("\n")[2]
    return "\n".join(line for line in said.splitlines() if not line.startswith(_ANNOUNCED)).strip()


def disk_with(driver: LibvirtDriver, spec: InstanceSpec, serial: str) -> str:
    """The device that has this serial, as the guest calls it."""
    return run_inside(driver, spec, f"grep -l '^{serial}$' /sys/block/vd*/serial | cut -d/ -f4")


def write_marker(driver: LibvirtDriver, spec: InstanceSpec, serial: str, marker: str) -> None:
    """Write a word to the first sector of a disk."""
    device = disk_with(driver, spec, serial)
    run_inside(driver, spec, f"echo {marker} | dd of=/dev/{device} bs=512 count=1 conv=sync,fsync")


def read_marker(driver: LibvirtDriver, spec: InstanceSpec, serial: str) -> str:
    """The word in the first sector of a disk, past the guest's cache."""
    device = disk_with(driver, spec, serial)
    command = f"blockdev --flushbufs /dev/{device}; dd if=/dev/{device} bs=512 count=1 2>/dev/null | tr -d '\\0'"
    return run_inside(driver, spec, command)


def first_sector(path: Path) -> bytes:
    """What the host finds in a file's first sector."""
    with path.open("rb") as file:
        return file.read(SECTOR).rstrip(b"\0")
