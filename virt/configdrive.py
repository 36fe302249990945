"""What a guest is told through its config drive, in OpenStack's layout: cloud-init and cloudbase-init read it.

Addresses are claimed in the database before the guest starts. They are given as static ones, except where the host has
a DHCP server for the network: there a guest is told to ask, and gets the same (`injected` networks: static all the
same). An interface without addresses is told to ask. The default route leads through the first interface whose network
has a gateway, for each family.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import PurePosixPath
from typing import Any

from virt import iso9660
from virt.errors import DiskError
from virt.spec import InstanceSpec, Vif

LABEL = "config-2"
MAX_BYTES = 64 * 1024**2

_LATEST = "openstack/latest"
_ANYWHERE = {4: "0.0.0.0", 6: "::"}  # noqa: S104 - a destination, nothing listens there

Json = dict[str, Any]


def has_content(spec: InstanceSpec) -> bool:
    """True when something was handed in for the guest that nothing but a config drive brings to it."""
    return bool(spec.user_data or spec.key_data or spec.injected_files or spec.metadata or spec.admin_password)


def image(spec: InstanceSpec) -> bytes:
    """The config drive: the same bytes for the same spec. Raises DiskError."""
    documents = files(spec)
    size = sum(len(content) for content in documents.values())
    if size > MAX_BYTES:
        raise DiskError(f"guest {spec.name}: its config drive would hold {size} bytes, at most {MAX_BYTES}")
    return iso9660.image(documents, LABEL)


def files(spec: InstanceSpec) -> dict[str, bytes]:
    """Every file of the drive, by path. Raises DiskError for user data or a file's path that is malformed."""
    found = {
        f"{_LATEST}/meta_data.json": _document(meta_data(spec)),
        f"{_LATEST}/network_data.json": _document(network_data(spec.vifs)),
        f"{_LATEST}/vendor_data.json": _document({}),
        "ec2/latest/meta-data.json": _document(ec2_meta_data(spec)),
    }
    if spec.user_data:
        found[f"{_LATEST}/user_data"] = found["ec2/latest/user-data"] = _user_data(spec, spec.user_data)
    for number, (_, content) in enumerate(spec.injected_files):
        found[f"openstack/content/{number:04d}"] = content
    return found


def meta_data(spec: InstanceSpec) -> Json:
    """meta_data.json: who the guest is, who may log in, and where its files belong."""
    key = (spec.key_name or "default", spec.key_data.strip()) if spec.key_data else None
    facts = {
        "uuid": spec.uuid,
        "hostname": spec.hostname,
        "name": spec.display_name,
        "launch_index": 0,
        "project_id": spec.project_id,
        "availability_zone": spec.availability_zone,
        "public_keys": {key[0]: key[1]} if key else None,
        "keys": [{"name": key[0], "type": "ssh", "data": key[1]}] if key else None,
        "files": [
            {"content_path": f"/content/{number:04d}", "path": _checked_path(spec, path)}
            for number, (path, _) in enumerate(spec.injected_files)
        ],
        "admin_pass": spec.admin_password,
        "meta": dict(spec.metadata),
    }
    return {name: value for name, value in facts.items() if value is not None and value != []}


def ec2_meta_data(spec: InstanceSpec) -> Json:
    """The few facts that users of EC2's names look for."""
    addresses = [str(address.ip) for vif in spec.vifs for address in vif.addresses]
    return {
        "instance-id": f"i-{spec.id:08x}",
        "hostname": spec.hostname,
        "local-hostname": spec.hostname,
        "instance-type": spec.flavor,
        **({"local-ipv4": addresses[0]} if addresses else {}),
    }


def network_data(vifs: Sequence[Vif]) -> Json:
    """network_data.json: links by MAC address, their addresses, routes and name servers."""
    servers = dict.fromkeys(str(server) for vif in vifs for server in vif.network.dns)
    return {
        "links": [{"id": vif.dev, "type": "phy", "ethernet_mac_address": vif.mac} for vif in vifs],
        "networks": [{"id": f"network{number}"} | found for number, found in enumerate(_networks(vifs))],
        "services": [{"type": "dns", "address": server} for server in servers],
    }


def network_document(spec: InstanceSpec) -> bytes:
    """network_data.json as bytes."""
    return _document(network_data(spec.vifs))


def _networks(vifs: Sequence[Vif]) -> Iterator[Json]:
    routed: set[int] = set()
    for vif in vifs:
        ours: Json = {"link": vif.dev, "network_id": str(vif.network.id)}
        addresses: tuple[IPv4Interface | IPv6Interface, ...] = (*vif.addresses, *vif.addresses_v6)
        for address in addresses:
            yield ours | (_asked_for(vif, address, routed) or _static(vif, address, routed))
        if not addresses:
            yield {"type": "ipv4_dhcp"} | ours


def _asked_for(vif: Vif, address: IPv4Interface | IPv6Interface, routed: set[int]) -> Json:
    """How a guest asks for an address; empty when it has to be told. `routed`: as of `_static`."""
    is_answered = vif.network.dhcp_server is not None if address.version == 4 else vif.network.advertised
    if vif.network.injected or not is_answered:
        return {}
    if vif.network.gateway is not None or address.version == 6:
        routed.add(address.version)
    return {"type": "ipv4_dhcp" if address.version == 4 else "ipv6_slaac"}


def _static(vif: Vif, address: IPv4Interface | IPv6Interface, routed: set[int]) -> Json:
    """One address; `routed` are the families that have their default route, and more after this."""
    family = address.version
    gateway = vif.network.gateway if family == 4 else vif.network.gateway_v6
    routes = []
    if gateway is not None and family not in routed:
        routed.add(family)
        routes = [{"network": _ANYWHERE[family], "netmask": _ANYWHERE[family], "gateway": str(gateway)}]
    mask = str(address.netmask)
    return {"type": f"ipv{family}", "ip_address": str(address.ip), "netmask": mask, "routes": routes}


def _user_data(spec: InstanceSpec, encoded: str) -> bytes:
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as exc:  # ValueError: it is not even ASCII
        raise DiskError(f"guest {spec.name}: its user data is not base64: {exc}") from exc


def _checked_path(spec: InstanceSpec, path: str) -> str:
    windows = path[1:3] in {":\\", ":/"} and path[0].isalpha()
    parts = PurePosixPath(path.replace("\\", "/")).parts
    if not (path.startswith("/") or windows) or ".." in parts or "\0" in path:
        raise DiskError(f"guest {spec.name}: a file cannot be put at {path!r}: not a plain absolute path")
    return path


def _document(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=1, ensure_ascii=False).encode(errors="replace") + b"\n"
