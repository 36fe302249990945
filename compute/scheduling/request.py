"""What is to be placed: the sizes of one instance and every condition on its host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from compute.errors import InvalidInputError, NotAuthorizedError

AFFINITY, ANTI_AFFINITY = "affinity", "anti-affinity"
POLICIES = frozenset({AFFINITY, ANTI_AFFINITY})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One instance that needs a host.

    force_host: an administrator's choice. exclude: hosts tried before, and why each failed. group_hosts: where the
    server group has members now, as `group_facts` read them in the same transaction; requests of one call that share
    server_group_id keep the group's policy among themselves too. same_host, different_host: on one of, on none of.
    Raises InvalidInputError for a group policy that does not exist.
    """

    vcpus: int
    memory_mb: int
    local_gb: int
    project_id: str = ""
    availability_zone: str | None = None
    force_host: str | None = None
    exclude: Mapping[str, str] = field(default_factory=dict)
    server_group_id: int | None = None
    group_policy: str | None = None
    group_hosts: frozenset[str] = frozenset()
    same_host: frozenset[str] = frozenset()
    different_host: frozenset[str] = frozenset()
    hypervisor_type: str | None = None

    def __post_init__(self) -> None:
        if self.group_policy is not None and self.group_policy not in POLICIES:
            raise InvalidInputError(f"server group policy {self.group_policy!r}: must be one of {sorted(POLICIES)}")

    def __str__(self) -> str:
        zone = f" in zone {self.availability_zone}" if self.availability_zone else ""
        forced = f" on host {self.force_host}" if self.force_host else ""
        return f"{self.vcpus} vCPUs, {self.memory_mb} MiB memory, {self.local_gb} GiB disk{zone}{forced}"


def split_zone(availability_zone: str | None, *, is_admin: bool) -> tuple[str | None, str | None]:
    """Read `zone` or an administrator's `zone:host` (also `:host`) as (availability_zone, force_host).

    Raises NotAuthorizedError when somebody else names a host, InvalidInputError when none follows the colon.
    """
    if not availability_zone:
        return None, None
    zone, colon, host = availability_zone.partition(":")
    if not colon:
        return zone, None
    if not is_admin:
        raise NotAuthorizedError(f"availability zone {availability_zone!r}: only administrators choose a host")
    if not host:
        raise InvalidInputError(f"availability zone {availability_zone!r}: no host after the colon")
    return zone or None, host
