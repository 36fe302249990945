"""Network interfaces."""

from __future__ import annotations

from virt.libvirt.xml.node import Node, at


class FilterParameter(Node):
    """A variable that a network filter of the guest uses."""

    TAG = "parameter"
    name: str = at("@name")
    value: str = at("@value")


class Interface(Node):
    """A network interface on a bridge of the host."""

    TAG = "interface"
    type: str = at("@type", default="bridge")
    mac: str = at("mac/@address")
    bridge: str = at("source/@bridge")
    dev: str = at("target/@dev")
    model: str = at("model/@type", default="virtio")
    filter: str | None = at("filterref/@filter", default=None)
    filter_parameters: tuple[FilterParameter, ...] = at("filterref", default=())
