"""Volumes as disks of a domain. Each has its attachment's id as its alias, so that an older order never takes it."""

from __future__ import annotations

import uuid

from virt.errors import VolumeError
from virt.libvirt.xml.disk import Disk, DiskAuth, DiskHost
from virt.spec import InstanceSpec, VolumeAttachment
from virt.volumes import Endpoint, VolumeSource, serial_of, source_of, target_of

_SECRETS = uuid.UUID("6f6ad0d2-3d4c-5a39-9d0c-0a5d3c1f7e52")
_USAGES = {"iscsi": "iscsi", "rbd": "ceph"}
_TYPES = {"file": "file", "block": "block"}


def volume_disk(spec: InstanceSpec, volume: VolumeAttachment, cache: str | None = None) -> Disk:
    """A volume as a disk of its guest. Raises VolumeError when its connection, device or serial will not do."""
    source = source_of(volume)
    return Disk(
        type=_TYPES.get(source.protocol, "network"),
        format="raw",
        cache=cache if source.protocol == "file" else "none",
        discard="unmap",
        file=source.name if source.protocol == "file" else None,
        block=source.name if source.protocol == "block" else None,
        protocol=source.protocol if source.is_network else None,
        name=(source.name or None) if source.is_network else None,
        hosts=tuple(_host(endpoint) for endpoint in source.endpoints),
        auth=_auth(spec, volume, source),
        target=target_of(volume),
        serial=serial_of(volume),
        alias=alias_of(volume),
    )


def volume_disks(spec: InstanceSpec, own: tuple[Disk, ...], cache: str | None = None) -> tuple[Disk, ...]:
    """Every volume of a guest as a disk beside its `own` disks. Raises VolumeError when two share a device."""
    disks = tuple(volume_disk(spec, volume, cache) for volume in spec.volumes)
    taken = {disk.target for disk in own}
    for disk, volume in zip(disks, spec.volumes, strict=True):
        if disk.target in taken:
            raise VolumeError(f"volume {volume.volume_id}: guest {spec.name} has another disk at {volume.device}")
        taken.add(disk.target)
    return disks


def alias_of(volume: VolumeAttachment) -> str:
    """The name of this very attachment in a domain."""
    return f"ua-attachment-{volume.attachment_id}"


def secret_uuid(spec: InstanceSpec, volume: VolumeAttachment) -> str:
    """The uuid of the libvirt secret that a guest opens a volume with."""
    return str(uuid.uuid5(_SECRETS, f"{spec.uuid}/{volume.volume_id}"))


def secret_usage(source: VolumeSource) -> str:
    """libvirt's word for what a secret is used for."""
    return _USAGES[source.protocol]


def _auth(spec: InstanceSpec, volume: VolumeAttachment, source: VolumeSource) -> DiskAuth | None:
    if source.auth is None:
        return None
    return DiskAuth(username=source.auth.user, type=secret_usage(source), secret=secret_uuid(spec, volume))


def _host(endpoint: Endpoint) -> DiskHost:
    if endpoint.socket is not None:
        return DiskHost(transport="unix", socket=endpoint.socket)
    return DiskHost(name=endpoint.host, port=endpoint.port)
