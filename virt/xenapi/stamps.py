"""What our objects in a pool are called, and what they carry to be known by.

Labels are for people and for finding an object in one call; they are not unique. Whose an object is, its other_config
says. Objects of no such stamp are nobody's business here. Copies that operators make have the stamp of the original, so
a VM's stamp names the VM (`nova-vm`).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from virt.spec import InstanceSpec

CLUSTER, UUID, NAME, EPOCH, HOST, ROLE, STAGE = (
    "nova-cluster", "nova-uuid", "nova-name", "nova-epoch", "nova-host", "nova-role", "nova-stage",
)  # fmt: skip
SHA256, ATTACHMENT, VOLUME, VM = "nova-sha256", "nova-attachment", "nova-volume", "nova-vm"
_OURS = frozenset({CLUSTER, UUID, NAME, EPOCH, HOST, ROLE, STAGE, SHA256, VM})

_VOLUMES = uuid.UUID("0f5c1f8e-51f0-5d0a-8c8e-3c4b8de0f0a4")
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


class Role(StrEnum):
    """What a disk is to its guest."""

    ROOT = "root"
    EPHEMERAL = "ephemeral"
    SWAP = "swap"
    CONFIG = "config"
    RESCUE = "rescue"
    SNAPSHOT = "snapshot"


class Stage(StrEnum):
    """Why a VM of ours is no guest: it is being made, or kept so that a resize can be reverted."""

    UNFINISHED = "unfinished"
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class Stamp:
    """Who makes objects: an installation, on one host of the pool (its uuid there)."""

    cluster: str
    host: str

    def of(self, spec: InstanceSpec, **more: str) -> dict[str, str]:
        """The other_config of an object of this guest."""
        facts = {CLUSTER: self.cluster, UUID: spec.uuid, NAME: spec.name, EPOCH: str(spec.epoch), HOST: self.host}
        return facts | {f"nova-{key}": value for key, value in more.items()}

    def over(self, other_config: Mapping[str, str], spec: InstanceSpec, **more: str) -> dict[str, str]:
        """The same in place of our older facts; what others noted beside them stays."""
        return {key: value for key, value in other_config.items() if key not in _OURS} | self.of(spec, **more)

    def is_on(self, other_config: Mapping[str, str], spec: InstanceSpec | None = None) -> bool:
        """True if this installation made the object, for this guest when one is named."""
        ours = other_config.get(CLUSTER) == self.cluster
        return ours and (spec is None or other_config.get(UUID) == spec.uuid)


def unfinished(spec: InstanceSpec) -> str:
    """The label of a VM that is being made. It cannot be stamped yet, so the label says whose it is."""
    return f"{spec.name} {spec.uuid} (unfinished)"


def kept(spec: InstanceSpec) -> str:
    """The label of a VM that is kept so that a resize can be reverted."""
    return f"{spec.name} {spec.uuid} (kept for a revert)"


def disk(spec: InstanceSpec, role: Role, *, is_kept: bool = False) -> str:
    """The label of a guest's disk."""
    return f"{spec.name} {role.value}" + (" (kept for a revert)" if is_kept else "")


def volume_uuid(cluster: str, volume_id: int) -> str:
    """The uuid of a volume's storage repository, the same on every host."""
    return str(uuid.uuid5(_VOLUMES, f"{cluster}/{volume_id}"))


def printable(text: str) -> str:
    """`text` without the characters that no XML document may have."""
    return _NOT_XML.sub("\ufffd", text)
