"""Block device mappings: which volumes a new instance has from the start, and which of them it boots from.

Names are those of Nova's block_device_mapping: device_name, volume_id, delete_on_termination.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compute import valid
from compute.context import RequestContext
from compute.errors import InvalidInputError, VolumeNotFoundError
from compute.policy import may_see
from db import volumes
from db.session import Tx

DEVICE = re.compile(r"/dev/[a-z]d[a-z]+")
_ROOT = re.compile(r"/dev/[a-z]da")
_KEYS = {"device_name", "volume_id", "delete_on_termination"}
_MOST = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDevice:
    """One volume of a new instance. delete_on_termination: it is deleted with the instance."""

    device_name: str
    volume_id: int
    delete_on_termination: bool = False

    @property
    def is_root(self) -> bool:
        """True when the instance boots from it: it is the first disk, /dev/vda by any name."""
        return _ROOT.fullmatch(self.device_name) is not None


def read(mapping: Any) -> tuple[BlockDevice, ...]:
    """A mapping as a caller or a message gives it: a list of {device_name, volume_id, delete_on_termination}.

    Raises InvalidInputError for what is no such thing, and for a device or a volume that comes twice.
    """
    if not isinstance(mapping, list | tuple):
        raise InvalidInputError(f"block device mapping: is not a list: {mapping!r:.80}")
    found = tuple(_one(entry) for entry in mapping)
    if len(found) > _MOST:
        raise InvalidInputError(f"block device mapping: {len(found)} volumes, at most {_MOST}")
    for what, values in (
        ("device", [one.device_name.removeprefix("/dev/")[2:] for one in found]),
        ("volume", [str(one.volume_id) for one in found]),
    ):
        twice = {value for value in values if values.count(value) > 1}
        if twice:
            raise InvalidInputError(f"block device mapping: {what} {', '.join(sorted(twice))} comes twice")
    return found


def _one(entry: Any) -> BlockDevice:
    if not isinstance(entry, Mapping) or not {"device_name", "volume_id"} <= entry.keys() <= _KEYS:
        raise InvalidInputError(f"block device mapping: needs device_name and volume_id, and may have "
                                f"delete_on_termination, not {entry!r:.80}")  # fmt: skip
    name = str(entry["device_name"])
    name = name if name.startswith("/dev/") else f"/dev/{name}"
    if not DEVICE.fullmatch(name):
        raise InvalidInputError(f"block device mapping: device {name!r:.60} does not look like /dev/vdb")
    ends = entry.get("delete_on_termination", False)
    if not isinstance(ends, bool):
        raise InvalidInputError(f"block device mapping: delete_on_termination {ends!r:.20} is neither true nor false")
    volume_id = valid.whole("volume", entry["volume_id"], least=1)
    return BlockDevice(device_name=name, volume_id=volume_id, delete_on_termination=ends)


def boots_from_volume(devices: Sequence[BlockDevice]) -> bool:
    """True when one of them is the root disk."""
    return any(one.is_root for one in devices)


def host_of(tx: Tx, context: RequestContext, devices: Sequence[BlockDevice]) -> str | None:
    """The one host that has these volumes; None when every host sees them.

    Raises VolumeNotFoundError for what the caller may not see, InvalidInputError when no host has them all.
    """
    hosts: dict[str, int] = {}
    for one in devices:
        volume = volumes.get(tx, one.volume_id)
        if not may_see(context, volume.project_id):
            raise VolumeNotFoundError(f"no volume {one.volume_id}")
        if volume.host is not None:
            hosts[volume.host] = one.volume_id
    if len(hosts) > 1:
        where = ", ".join(f"volume {volume_id} is on {host}" for host, volume_id in sorted(hosts.items()))
        raise InvalidInputError(f"block device mapping: {where}")
    return next(iter(hosts), None)


def reserve(tx: Tx, instance_id: int, devices: Iterable[BlockDevice]) -> None:
    """Take the volumes for a new instance, all or none; raises what volumes.reserve_attachment does."""
    for one in sorted(devices, key=lambda device: device.volume_id):  # in one order, so that two creates never deadlock
        volumes.reserve_attachment(
            tx, one.volume_id, instance_id, one.device_name,
            is_root=one.is_root, delete_on_termination=one.delete_on_termination,
        )  # fmt: skip
