"""Errors of the database layer, each saying what is wrong with what."""

from __future__ import annotations


class DatabaseError(Exception):
    """Base of what db raises on purpose."""

    expected = True


class RowNotFoundError(DatabaseError):
    """No live row: `kind` and `key` name what was looked for."""

    def __init__(self, kind: str, key: object) -> None:
        super().__init__(f"no {kind} {key}")
        self.kind, self.key = kind, key


class DuplicateRowError(DatabaseError):
    """A unique name or address is taken."""


class DatabaseUnreachableError(DatabaseError):
    """The server did not answer within the configured retries."""


class SchemaVersionError(DatabaseError):
    """The database is at another revision than this code."""


class RowInUseError(DatabaseError):
    """A row cannot go while others refer to it: `kind`, `key` and `by`, what uses it."""

    def __init__(self, kind: str, key: object, by: str) -> None:
        super().__init__(f"{kind} {key} is in use by {by}")
        self.kind, self.key, self.by = kind, key, by


class InvalidNetworkError(DatabaseError):
    """A network's addresses do not add up: the message says which and why."""


class AddressPoolEmptyError(DatabaseError):
    """No address of a network is free."""

    def __init__(self, label: str) -> None:
        super().__init__(f"network {label} has no free address")
        self.label = label


class AddressUnavailableError(DatabaseError):
    """The address asked for is reserved, held by another instance, or not of this network."""

    def __init__(self, label: str, address: str, reason: str) -> None:
        super().__init__(f"address {address} of network {label} is {reason}")
        self.label, self.address, self.reason = label, address, reason


class VolumeInUseError(DatabaseError):
    """A volume is reserved by or attached to an instance, this one or another."""

    def __init__(self, volume_id: int, instance_id: int | None, mountpoint: str | None = None) -> None:
        holder = "an instance" if instance_id is None else f"instance {instance_id}"
        where = f" at {mountpoint}" if mountpoint else ""
        super().__init__(f"volume {volume_id} is in use by {holder}{where}")
        self.volume_id, self.instance_id = volume_id, instance_id


class VolumeElsewhereError(DatabaseError):
    """Only one host has a volume's bytes, and the instance is on another."""

    def __init__(self, volume_id: int, host: str | None, instance_id: int) -> None:
        super().__init__(f"volume {volume_id} is on host {host}, instance {instance_id} is not")
        self.volume_id, self.host, self.instance_id = volume_id, host, instance_id


class VolumeStatusError(DatabaseError):
    """A volume's status forbids what was asked."""

    def __init__(self, volume_id: int, status: str) -> None:
        super().__init__(f"volume {volume_id} is {status}")
        self.volume_id, self.status = volume_id, status


class MountpointTakenError(DatabaseError):
    """Another volume sits at this device name of the instance."""

    def __init__(self, instance_id: int, mountpoint: str) -> None:
        super().__init__(f"instance {instance_id} has a volume at {mountpoint} already")
        self.instance_id, self.mountpoint = instance_id, mountpoint
