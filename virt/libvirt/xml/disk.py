"""Disks."""

from __future__ import annotations

from virt.libvirt.xml.node import Node, at


class Disk(Node):
    """A disk in a file of the host."""

    TAG = "disk"
    type: str = at("@type", default="file")
    device: str = at("@device", default="disk")
    driver: str = at("driver/@name", default="qemu")
    format: str = at("driver/@type")
    cache: str | None = at("driver/@cache", default=None)
    discard: str | None = at("driver/@discard", default=None)
    file: str = at("source/@file")
    target: str = at("target/@dev")
    bus: str = at("target/@bus", default="virtio")
    serial: str | None = at("serial", default=None)
    readonly: bool = at("readonly", default=False)
