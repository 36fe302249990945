"""Disks."""

from __future__ import annotations

from virt.libvirt.xml.node import Node, at


class DiskHost(Node):
    """A server that a disk is on: a host, or a socket with transport `unix`."""

    TAG = "host"
    transport: str | None = at("@transport", default=None)
    name: str | None = at("@name", default=None)
    port: int | None = at("@port", default=None)
    socket: str | None = at("@socket", default=None)


class DiskAuth(Node):
    """Who a server is told that we are; `secret` is the uuid of a libvirt secret."""

    TAG = "auth"
    username: str = at("@username")
    type: str = at("secret/@type")
    secret: str = at("secret/@uuid")


class Disk(Node):
    """A disk in a file of the host (type file), on a device of it (block) or on a server (network)."""

    TAG = "disk"
    type: str = at("@type", default="file")
    device: str = at("@device", default="disk")
    driver: str | None = at("driver/@name", default="qemu")
    format: str = at("driver/@type")
    cache: str | None = at("driver/@cache", default=None)
    discard: str | None = at("driver/@discard", default=None)
    file: str | None = at("source/@file", default=None)
    block: str | None = at("source/@dev", default=None)
    protocol: str | None = at("source/@protocol", default=None)
    name: str | None = at("source/@name", default=None)
    hosts: tuple[DiskHost, ...] = at("source", default=())
    auth: DiskAuth | None = at("source", default=None)
    target: str = at("target/@dev")
    bus: str = at("target/@bus", default="virtio")
    serial: str | None = at("serial", default=None)
    readonly: bool = at("readonly", default=False)
    alias: str | None = at("alias/@name", default=None)
