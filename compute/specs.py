"""Rows to frozen driver specs: the only translator."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_network

from compute.sealing import Sealer
from db import images, networks, security_groups, volumes
from db.work import Dossier
from virt import spec
from virt.network.mode import NetworkMode


class SpecBuilder:
    """Builds InstanceSpecs with this deployment's naming and its seal."""

    def __init__(self, *, name_template: str, sealer: Sealer, networks: NetworkMode | None = None) -> None:
        """networks: what hosts do for networks; nothing more than to have their bridges by default."""
        self._name_template, self._sealer, self._networks = name_template, sealer, networks or NetworkMode()

    def name_of(self, instance_id: int) -> str:
        """The guest's name on its hypervisor."""
        return self._name_template % instance_id

    def build(self, dossier: Dossier) -> spec.InstanceSpec:
        """The spec of one instance."""
        row = dossier.instance
        return spec.InstanceSpec(
            id=row.id,
            uuid=row.uuid,
            name=self.name_of(row.id),
            display_name=row.display_name,
            hostname=row.hostname,
            project_id=row.project_id,
            user_id=row.user_id,
            memory_mb=row.memory_mb,
            vcpus=row.vcpus,
            root_gb=row.local_gb - row.ephemeral_gb,
            ephemeral_gb=row.ephemeral_gb,
            swap_mb=row.swap,
            flavor=dossier.flavor,
            os_type=row.os_type,
            epoch=row.epoch,
            image=image_spec(dossier.image),
            kernel=image_spec(dossier.kernel),
            ramdisk=image_spec(dossier.ramdisk),
            vifs=tuple(self.vif(held) for held in dossier.addresses),
            volumes=tuple(self.attachment(one) for one in dossier.volumes),
            security_groups=tuple(_group(one, dossier.members) for one in dossier.groups),
            key_name=row.key_name,
            key_data=row.key_data,
            user_data=row.user_data,
            metadata=dossier.metadata,
            injected_files=self._files(row.sealed_files),
            admin_password=self._sealer.open(row.sealed_password) if row.sealed_password else None,
            availability_zone=row.availability_zone,
            read_at=dossier.read_at,
        )

    def vif(self, held: networks.HeldAddress) -> spec.Vif:
        """One interface, on its network as this deployment serves it."""
        made = vif(held)
        return replace(made, network=self._networks.serve(made.network))

    def attachment(self, row: volumes.Attachment) -> spec.VolumeAttachment:
        """A volume as its guest sees it; `provider_location` is `protocol:rest`."""
        protocol, _, source = (row.provider_location or "").partition(":")
        connection = {"protocol": protocol, "source": source}
        if row.sealed_auth:
            connection["auth"] = str(self._sealer.open(row.sealed_auth))
        return spec.VolumeAttachment(
            attachment_id=row.id,
            volume_id=row.volume_id,
            device=row.mountpoint,
            serial=f"vol-{row.volume_id:08x}",
            size_gb=row.size,
            connection=connection,
            is_root=row.is_root,
        )

    def _files(self, sealed: str | None) -> tuple[tuple[str, bytes], ...]:
        if not sealed:
            return ()
        return tuple((path, base64.b64decode(content)) for path, content in self._sealer.open(sealed))


def image_spec(row: images.Image | None) -> spec.ImageSpec | None:
    """An image as a host needs it."""
    if row is None:
        return None
    return spec.ImageSpec(
        id=row.id,
        name=row.name,
        location=row.location,
        disk_format=row.disk_format,
        sha256=row.sha256,
        min_disk_gb=row.min_disk_gb,
        properties={key: str(value) for key, value in row.properties.items()},
    )


def vif(held: networks.HeldAddress) -> spec.Vif:
    """One interface, with its IPv4 address and, on networks that have one, the EUI-64 address of its MAC."""
    network = held.network
    prefix = ip_network(network.cidr).prefixlen
    v6 = (to_global_ipv6(network.cidr_v6, held.mac),) if network.cidr_v6 else ()
    return spec.Vif(
        mac=held.mac,
        network=network_spec(network),
        addresses=(IPv4Interface(f"{held.address}/{prefix}"),),
        addresses_v6=v6,
    )


@lru_cache(256)
def network_spec(row: networks.Network) -> spec.Network:
    """A network as a host must provide it."""
    return spec.Network(
        id=row.id,
        label=row.label,
        bridge=row.bridge,
        cidr=row.cidr,
        gateway=IPv4Address(row.gateway) if row.gateway else None,
        dns=tuple(ip_address(one.strip()) for one in (row.dns or "").split(",") if one.strip()),
        dhcp_start=IPv4Address(row.dhcp_start) if row.dhcp_start else None,
        vlan=row.vlan,
        bridge_interface=row.bridge_interface,
        cidr_v6=row.cidr_v6,
        gateway_v6=IPv6Address(row.gateway_v6) if row.gateway_v6 else None,
        injected=row.injected,
    )


def to_global_ipv6(prefix: str, mac: str) -> IPv6Interface:
    """The address that stateless configuration gives `mac` in `prefix` (RFC 4291, modified EUI-64)."""
    octets = [int(octet, 16) for octet in mac.split(":")]
    eui = bytes([octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]])
    network = ip_network(prefix)
    return IPv6Interface((int(network.network_address) | int.from_bytes(eui, "big"), network.prefixlen))


def member_addresses(members: Iterable[security_groups.Member]) -> tuple[str, ...]:
    """What members of a group are known by: their address, and on networks that have one that of their MAC."""
    found = []
    for one in members:
        found.append(one.address)
        if one.cidr_v6:
            found.append(str(to_global_ipv6(one.cidr_v6, one.mac).ip))
    return tuple(found)


def _group(
    row: security_groups.GroupRules, members: Mapping[int, Sequence[security_groups.Member]]
) -> spec.SecurityGroup:
    rules = tuple(
        spec.Rule(protocol=r.protocol, from_port=r.from_port, to_port=r.to_port, cidr=r.cidr, group_id=r.group_id)
        for r in row.rules
    )
    followed = sorted({r.group_id for r in row.rules if r.group_id is not None})
    known = {group_id: member_addresses(members.get(group_id, ())) for group_id in followed}
    return spec.SecurityGroup(id=row.id, name=row.name, rules=rules, members=known)
