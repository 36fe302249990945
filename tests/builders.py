"""Specs with defaults: a test names only what it is about."""

from __future__ import annotations

import itertools
import uuid
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from virt.spec import ImageSpec, InstanceSpec, Network, Rule, SecurityGroup, Vif, VolumeAttachment

_numbers = itertools.count(1)


def an_image(**changes: Any) -> ImageSpec:
    """An image on a server that the fake driver takes to be there."""
    defaults: dict[str, Any] = {
        "id": 1,
        "name": "cirros",
        "location": "http://images.example.org/cirros.raw",
        "disk_format": "raw",
    }
    return ImageSpec(**(defaults | changes))


def a_network(**changes: Any) -> Network:
    """A flat network with a gateway and DHCP."""
    defaults: dict[str, Any] = {
        "id": 1,
        "label": "private",
        "bridge": "br100",
        "cidr": "10.0.0.0/24",
        "gateway": IPv4Address("10.0.0.1"),
        "dns": (IPv4Address("10.0.0.1"),),
        "dhcp_start": IPv4Address("10.0.0.2"),
    }
    return Network(**(defaults | changes))


def a_vif(**changes: Any) -> Vif:
    """An interface with a MAC and an address of its own."""
    number = next(_numbers)
    defaults: dict[str, Any] = {
        "mac": f"02:16:3e:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}",
        "network": a_network(),
        "addresses": (IPv4Interface(f"10.0.0.{number % 250 + 3}/24"),),
    }
    return Vif(**(defaults | changes))


def a_volume(**changes: Any) -> VolumeAttachment:
    """A volume of its own at /dev/vdb."""
    number = next(_numbers)
    defaults: dict[str, Any] = {
        "attachment_id": number,
        "volume_id": number,
        "device": "/dev/vdb",
        "serial": f"vol-{number:08x}",
        "size_gb": 1,
        "connection": {"protocol": "file", "source": f"/volumes/{number}"},
    }
    return VolumeAttachment(**(defaults | changes))


def a_rule(**changes: Any) -> Rule:
    """SSH from anywhere."""
    defaults: dict[str, Any] = {"protocol": "tcp", "from_port": 22, "to_port": 22}
    if "group_id" not in changes:
        defaults["cidr"] = "0.0.0.0/0"
    return Rule(**(defaults | changes))


def a_group(*rules: Rule, **changes: Any) -> SecurityGroup:
    """A security group with these rules."""
    defaults: dict[str, Any] = {"id": 1, "name": "default", "rules": rules}
    return SecurityGroup(**(defaults | changes))


def a_guest(**changes: Any) -> InstanceSpec:
    """A small guest with a name and a uuid of its own and one interface."""
    number = changes.get("id", next(_numbers))
    defaults: dict[str, Any] = {
        "id": number,
        "uuid": str(uuid.uuid4()),
        "name": f"instance-{number:08x}",
        "display_name": f"guest {number}",
        "hostname": f"guest-{number}",
        "project_id": "project",
        "user_id": "user",
        "memory_mb": 512,
        "vcpus": 1,
        "root_gb": 1,
        "flavor": "m1.tiny",
        "image": an_image(),
        "vifs": (a_vif(),) if "vifs" not in changes else (),
    }
    return InstanceSpec(**(defaults | changes))
