"""What QEMU is asked to copy while the guest runs."""

from __future__ import annotations

from virt.libvirt.xml.node import Node, at


class BackupDisk(Node):
    """One disk and the file that its content goes to."""

    TAG = "disk"
    name: str = at("@name")
    backup: bool = at("@backup", default=True)
    type: str = at("@type", default="file")
    target: str = at("target/@file")
    format: str = at("driver/@type", default="qcow2")


class Backup(Node):
    """A job that writes disks, as they are when it begins, to files; disks that it does not name stay out of it."""

    TAG = "domainbackup"
    mode: str = at("@mode", default="push")
    disks: tuple[BackupDisk, ...] = at("disks")
