"""Network interfaces."""

from __future__ import annotations

from virt.libvirt.xml.node import Node, at


class FilterParameter(Node):
    """A variable that a network filter of the guest uses."""

    TAG = "parameter"
    name: str = at("@name")
    value: str = at("@value")


class InterfaceAddress(Node):
    """An address that a container's interface has from its start."""

    TAG = "ip"
    family: str = at("@family")
    address: str = at("@address")
    prefix: int = at("@prefix")


class InterfaceRoute(Node):
    """A route through a container's interface."""

    TAG = "route"
    family: str = at("@family")
    address: str = at("@address")
    prefix: int = at("@prefix")
    gateway: str = at("@gateway")


class Interface(Node):
    """A network interface on a bridge of the host. guest_dev, addresses, routes: for containers."""

    TAG = "interface"
    type: str = at("@type", default="bridge")
    mac: str = at("mac/@address")
    bridge: str = at("source/@bridge")
    dev: str = at("target/@dev")
    guest_dev: str | None = at("guest/@dev", default=None)
    addresses: tuple[InterfaceAddress, ...] = at(".", default=())
    routes: tuple[InterfaceRoute, ...] = at(".", default=())
    model: str | None = at("model/@type", default="virtio")
    filter: str | None = at("filterref/@filter", default=None)
    filter_parameters: tuple[FilterParameter, ...] = at("filterref", default=())
