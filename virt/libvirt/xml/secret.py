"""Secrets that libvirt hands to QEMU; their values are set apart and never in a document."""

from __future__ import annotations

from virt.libvirt.xml.node import Node, at


class Secret(Node):
    """A secret that libvirt keeps in memory only and gives to nobody."""

    TAG = "secret"
    ephemeral: bool = at("@ephemeral", default=True)
    private: bool = at("@private", default=True)
    uuid: str = at("uuid")
    usage: str = at("usage/@type")
    target: str | None = at("usage/target", default=None)
    name: str | None = at("usage/name", default=None)
