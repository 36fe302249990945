"""The small devices that every guest has."""

from __future__ import annotations

from virt.libvirt.xml.node import Node, at


class Controller(Node):
    """A bus; model `none` keeps the guest from having one."""

    TAG = "controller"
    type: str = at("@type")
    model: str = at("@model")


class Channel(Node):
    """A virtio port for an agent in the guest; libvirt picks the socket."""

    TAG = "channel"
    type: str = at("@type", default="unix")
    target_type: str = at("target/@type", default="virtio")
    name: str = at("target/@name")


class MemoryBalloon(Node):
    """Tells how much of its memory the guest uses."""

    TAG = "memballoon"
    model: str = at("@model", default="virtio")
    stats_period_s: int | None = at("stats/@period", default=None)


class Rng(Node):
    """Randomness of the host for the guest."""

    TAG = "rng"
    model: str = at("@model", default="virtio")
    backend: str = at("backend/@model", default="random")
    source: str = at("backend", default="/dev/urandom")
