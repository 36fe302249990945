"""What a host holds of one guest, as plain records that a journal can keep."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

from virt.power_state import Power
from virt.spec import GuestFact

CONSOLE_LINES = 64


@dataclass(slots=True)
class Disk:
    """A disk file: its size, and a token that stands for its contents."""

    size_mb: int
    contents: str


@dataclass(slots=True)
class Domain:
    """A defined guest. obeys: it reacts to ACPI (shutdown and unplug requests). last_boot: soft, hard, rescue..."""

    uuid: str | None
    memory_mb: int
    vcpus: int
    ours: bool = True
    power: Power = Power.SHUTOFF
    boots: int = 0
    last_boot: str = ""
    rescued: bool = False
    obeys: bool = True
    cpu_ns: int = 0
    since_ns: int = 0
    console: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    password_sha256: str | None = None
    network: list[str] = field(default_factory=list)
    network_in_use: list[str] = field(default_factory=list)

    def turn(self, power: Power) -> None:
        """Change the power state, closing the account of CPU time used in the old one."""
        self.cpu_ns = self.cpu_time_ns() if power.is_on else 0
        self.since_ns = time.time_ns()
        self.power = power

    def cpu_time_ns(self) -> int:
        """CPU time since start: a twentieth of every CPU while running."""
        if self.power is not Power.RUNNING:
            return self.cpu_ns
        return self.cpu_ns + max(0, time.time_ns() - self.since_ns) * self.vcpus // 20

    def say(self, line: str) -> None:
        """Print a line on the console; old lines scroll away."""
        self.console.append(line)
        del self.console[:-CONSOLE_LINES]


@dataclass(slots=True)
class Footprint:
    """Everything that a host holds under one guest's name.

    A guest has a domain; without one this is what a broken operation, a migration or a resize left. taps: device by
    MAC. volumes: (volume id, attachment id) by device. filters: None is no filter at all. kept: the disks that a
    revert of a resize needs. reserved_mb: memory promised to a guest that is migrating in. moving: token of the
    hand-over that is under way.
    """

    name: str
    domain: Domain | None = None
    disks: dict[str, Disk] = field(default_factory=dict)
    taps: dict[str, str] = field(default_factory=dict)
    volumes: dict[str, tuple[int, int]] = field(default_factory=dict)
    filters: list[list[Any]] | None = None
    kept: dict[str, Disk] | None = None
    reserved_mb: int = 0
    snapshots: list[str] = field(default_factory=list)
    moving: str | None = None
    fact: GuestFact | None = None
    usage: tuple[int, int, int] = (0, 0, 0)

    def refresh(self) -> None:
        """Derive the listing line and the usage (memory MiB, disk MiB, CPUs) from the rest."""
        memory_mb, vcpus, self.fact = self.reserved_mb, 0, None
        if self.domain is not None:
            domain = self.domain
            self.fact = GuestFact(name=self.name, power=domain.power, uuid=domain.uuid, ours=domain.ours)
            if domain.power.is_on:
                memory_mb, vcpus = memory_mb + domain.memory_mb, domain.vcpus
        disk_mb = sum(disk.size_mb for disk in self.disks.values())
        if self.kept:
            disk_mb += sum(disk.size_mb for disk in self.kept.values())
        self.usage = (memory_mb, disk_mb, vcpus)

    @property
    def is_empty(self) -> bool:
        """True when the host holds nothing under this name."""
        held = (self.domain, self.disks, self.taps, self.volumes, self.kept, self.snapshots, self.reserved_mb)
        return not any(held) and self.filters is None


_STORED = tuple(name for name in Footprint.__slots__ if name not in {"fact", "usage"})


def _fields(record: object) -> dict[str, Any]:
    names = _STORED if isinstance(record, Footprint) else type(record).__slots__  # type: ignore[attr-defined]
    return {name: getattr(record, name) for name in names}


_encoder = json.JSONEncoder(default=_fields, separators=(",", ":"), check_circular=False)


def dump(held: Footprint) -> str:
    """A footprint as one line of JSON."""
    return _encoder.encode(held)


def dump_disks(disks: dict[str, Disk]) -> dict[str, Any]:
    """Disks as JSON-able data."""
    return {role: _fields(disk) for role, disk in disks.items()}


def parse_disks(data: dict[str, Any]) -> dict[str, Disk]:
    """The inverse of `dump_disks`."""
    return {role: Disk(**disk) for role, disk in data.items()}


def parse(line: str | bytes) -> Footprint:
    """The inverse of `dump`."""
    data: dict[str, Any] = json.loads(line)
    data["disks"] = parse_disks(data["disks"])
    data["kept"] = None if data["kept"] is None else parse_disks(data["kept"])
    data["volumes"] = {device: (plug[0], plug[1]) for device, plug in data["volumes"].items()}
    if data["domain"] is not None:
        data["domain"] = Domain(**data["domain"])
        data["domain"].power = Power(data["domain"].power)
    held = Footprint(**data)
    held.refresh()
    return held
