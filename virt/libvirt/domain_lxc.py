"""Containers: a directory of the host as the root, a network of their own, and users who are nobody on the host."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

from virt.libvirt.layout import Layout
from virt.libvirt.parts import Platform, interface_for, stamp_for
from virt.libvirt.xml.console import Console
from virt.libvirt.xml.container import Filesystem, IdMap
from virt.libvirt.xml.domain import Domain
from virt.libvirt.xml.interface import Interface, InterfaceAddress, InterfaceRoute
from virt.spec import InstanceSpec, Vif

INIT = "/sbin/init"
CONFIG = "/var/lib/cloud/seed/config_drive"
IDS = 65536
_FIRST_ID, _RANGES = 131072, 60000
_TERMINALS = 2  # the first is what init prints on, and it is logged; the second is for people


def container_for(spec: InstanceSpec, layout: Layout, platform: Platform) -> Domain:
    """A container whose root is `layout.rootfs`. It is told what a config drive would tell, in a directory."""
    config = Filesystem(source=str(layout.config), target=CONFIG, readonly=True)
    first = first_id(spec)
    return Domain(
        type="lxc",
        name=spec.name,
        uuid=spec.uuid,
        stamp=stamp_for(spec, platform.cluster),
        memory_mb=spec.memory_mb,
        vcpus=spec.vcpus,
        idmap=IdMap(uid_target=first, uid_count=IDS, gid_target=first, gid_count=IDS),
        os_type="exe",
        arch=platform.arch,
        init=INIT,
        acpi=False,
        apic=False,
        privnet=True,  # one without interfaces would share the host's network
        emulator=platform.emulator,
        filesystems=(
            Filesystem(source=str(layout.rootfs), target="/"),
            *((config,) if platform.has_config_drive(spec) else ()),
        ),
        interfaces=_interfaces(spec),
        consoles=tuple(Console(target_type="lxc", port=port) for port in range(_TERMINALS)),
    )


def first_id(spec: InstanceSpec) -> int:
    """The host's user, and group, that is root in this container: no two near each other in age share any."""
    return _FIRST_ID + spec.id % _RANGES * IDS


def _interfaces(spec: InstanceSpec) -> tuple[Interface, ...]:
    """eth0 and on. The default route of each family leads through the first interface whose network has a gateway."""
    made = []
    open_families = {"ipv4", "ipv6"}
    for number, vif in enumerate(spec.vifs):
        routes = tuple(route for route in _routes(vif) if route.family in open_families)
        open_families -= {route.family for route in routes}
        own: tuple[IPv4Interface | IPv6Interface, ...] = (*vif.addresses, *vif.addresses_v6)
        addresses = tuple(_address(one) for one in own)
        plain = interface_for(vif)
        made.append(plain.replace(model=None, guest_dev=f"eth{number}", addresses=addresses, routes=routes))
    return tuple(made)


def _address(address: IPv4Interface | IPv6Interface) -> InterfaceAddress:
    return InterfaceAddress(family=f"ipv{address.version}", address=str(address.ip), prefix=address.network.prefixlen)


def _routes(vif: Vif) -> list[InterfaceRoute]:
    found = []
    if vif.network.gateway is not None and vif.addresses:
        found.append(_default_route(vif.network.gateway, IPv4Address(0)))
    if vif.network.gateway_v6 is not None and vif.addresses_v6:
        found.append(_default_route(vif.network.gateway_v6, IPv6Address(0)))
    return found


def _default_route(gateway: IPv4Address | IPv6Address, anywhere: IPv4Address | IPv6Address) -> InterfaceRoute:
    return InterfaceRoute(family=f"ipv{gateway.version}", address=str(anywhere), prefix=0, gateway=str(gateway))
