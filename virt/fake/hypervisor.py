"""The world behind the fake driver: hosts, what they hold of each guest, and what they share."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virt.driver import Told
from virt.errors import DiskFullError, GuestExistsError, GuestNotFoundError, HypervisorError
from virt.fake.commons import Commons, DirectoryCommons, MemoryCommons
from virt.fake.journal import Journal
from virt.fake.records import Disk, Domain, Footprint, parse
from virt.power_state import Power
from virt.spec import GuestFact


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSize:
    """What a host has."""

    vcpus: int = 16384
    memory_mb: int = 64 * 1024**2
    local_gb: int = 1024**2


class FakeHypervisor:
    """One host. Every public method is atomic and safe from any thread; `lock` makes several of them one."""

    def __init__(
        self, host: str, commons: Commons, size: HostSize, rng: random.Random, journal: Journal | None
    ) -> None:
        self.host, self.commons, self.size, self.rng = host, commons, size, rng
        self.lock = threading.RLock()
        self.pool_password = self.token()
        self.group_members: dict[int, tuple[str, ...]] = {}
        self.provider_rules: list[dict[str, str]] = []
        self.told: Told | None = None
        self._journal = journal
        self._held: dict[str, Footprint] = {}
        self._building: set[str] = set()
        self._usage = (0, 0, 0)
        commons.enrol(host)
        self._load()

    def token(self) -> str:
        """Sixteen random bytes in hex."""
        return f"{self.rng.getrandbits(128):032x}"

    def arrive(self) -> None:
        """Take in the guests that other hosts have sent."""
        for token, record in self.commons.arrivals(self.host):
            with self.lock:
                self._take_in(parse(record))
            self.commons.acknowledge(self.host, token)

    def close(self) -> None:
        """Let go of the host's file; the guests stay in it."""
        if self._journal is not None:
            self._journal.close()

    def restarted(self) -> None:
        """A new driver took over: builds of the old one will not go on."""
        self._building.clear()

    # What is held

    def held(self, name: str) -> Footprint | None:
        """What this host holds under a name."""
        return self._held.get(name)

    def domain(self, name: str) -> Domain:
        """A defined guest; GuestNotFoundError when there is none."""
        held = self._held.get(name)
        if held is None or held.domain is None:
            raise GuestNotFoundError(f"{self.host} has no guest {name}")
        return held.domain

    def facts(self) -> Sequence[GuestFact]:
        """A line for every defined guest."""
        with self.lock:
            return [held.fact for held in self._held.values() if held.fact is not None]

    def names(self) -> list[str]:
        """Every name under which anything at all is held."""
        with self.lock:
            return list(self._held)

    def leftovers(self) -> dict[str, Footprint]:
        """What is held without a guest: the remains of broken operations, and what a resize keeps."""
        with self.lock:
            return {name: held for name, held in self._held.items() if held.domain is None}

    @property
    def usage(self) -> tuple[int, int, int]:
        """Memory MiB, disk MiB and CPUs in use."""
        return self._usage

    # Changes

    @contextmanager
    def changing(self, name: str) -> Iterator[tuple[Footprint, Domain]]:
        """Change a guest and record it, unless an exception ends the block; GuestNotFoundError."""
        with self.lock:
            domain = self.domain(name)
            held = self._held[name]
            yield held, domain
            self.save(held)

    @contextmanager
    def building(self, name: str) -> Iterator[Footprint]:
        """Make a guest under a free name, taking over what an earlier attempt left; GuestExistsError."""
        with self.lock:
            held = self._held.get(name)
            if name in self._building or (held is not None and held.domain is not None):
                raise GuestExistsError(f"{self.host} has a guest {name} already")
            if held is None:
                held = self.new_footprint(name)
            self._building.add(name)
        try:
            yield held
        finally:
            self._building.discard(name)

    def new_footprint(self, name: str) -> Footprint:
        """An empty footprint, recorded with its first `save`."""
        held = self._held[name] = Footprint(name)
        return held

    def save(self, held: Footprint) -> None:
        """Record a change; HypervisorError when the footprint was removed in the meantime."""
        with self.lock:
            if self._held.get(held.name) is not held:
                raise HypervisorError(f"guest {held.name} was removed from {self.host} while it was being changed")
            self._account(held)
            if self._journal is not None:
                self._journal.put(held, self._held)

    def erase(self, held: Footprint) -> None:
        """Hold nothing under this name but what a revert of a resize needs; succeed if it is gone."""
        with self.lock:
            if self._held.get(held.name) is not held:
                return
            if held.kept is not None:
                remains = self.new_footprint(held.name)
                remains.kept, remains.usage = held.kept, held.usage
                self.save(remains)
                return
            del self._held[held.name]
            self._settle(held.usage, (0, 0, 0))
            if self._journal is not None:
                self._journal.drop(held.name, self._held)

    def set_group_members(self, members: dict[int, tuple[str, ...]]) -> None:
        """Record who is in these security groups."""
        with self.lock:
            self.group_members.update(members)
            self._note("members", {str(group_id): found for group_id, found in self.group_members.items()})

    def set_provider_rules(self, rules: list[dict[str, str]]) -> None:
        """Record the provider's deny rules."""
        with self.lock:
            self.provider_rules = rules
            self._note("provider", rules)

    def define(self, held: Footprint, domain: Domain) -> None:
        """Make a footprint a guest."""
        with self.lock:
            held.domain, held.reserved_mb = domain, 0
            self.save(held)

    def check_memory(self, wanted_mb: int) -> None:
        """HypervisorError when the host has not that much left."""
        if self._usage[0] + wanted_mb > self.size.memory_mb:
            raise HypervisorError(f"{self.host}: cannot set up guest memory: cannot allocate {wanted_mb} MiB")

    def check_disk(self, wanted_mb: int) -> None:
        """DiskFullError when the host has not that much left."""
        if self._usage[1] + wanted_mb > self.size.local_gb * 1024:
            raise DiskFullError(f"{self.host}: no space left on device for {wanted_mb} MiB")

    def new_disk(self, size_mb: int) -> Disk:
        """A disk with contents of its own."""
        return Disk(size_mb, self.token())

    # What happens without the driver

    def make_foreign_guest(self, name: str, power: Power = Power.RUNNING) -> None:
        """Someone else makes a guest on this host."""
        with self.building(name) as held:
            self.define(held, Domain(uuid=None, memory_mb=128, vcpus=1, ours=False, power=power))

    def turn(self, name: str, power: Power) -> None:
        """A guest's power state changes by itself: it crashes, its owner shuts it down."""
        with self.changing(name) as (_, domain):
            domain.turn(power)
        if self.told is not None:
            self.told(domain.uuid)

    def make_deaf(self, name: str, *, obeys: bool = False) -> None:
        """A guest stops reacting to ACPI: it neither shuts down nor lets go of a disk when asked."""
        with self.changing(name) as (_, domain):
            domain.obeys = obeys

    # Inside

    def _load(self) -> None:
        if self._journal is None:
            return
        self._held = self._journal.load()
        for held in list(self._held.values()):
            usage, held.usage = held.usage, (0, 0, 0)
            self._settle((0, 0, 0), usage)
            held.usage = usage
            if held.moving is not None:
                self._settle_move(held, held.moving)

        members = self._journal.notes.get("members", {})
        self.group_members = {int(group_id): tuple(found) for group_id, found in members.items()}
        self.provider_rules = self._journal.notes.get("provider", [])

    def _note(self, key: str, value: Any) -> None:
        if self._journal is not None:
            self._journal.note(key, value, self._held)

    def _settle_move(self, held: Footprint, token: str) -> None:
        """A hand-over was cut short: it took place exactly if the record was sent."""
        if self.commons.is_staged(self.host, token):
            self.commons.unstage(self.host, token)
            held.moving = None
        else:
            sent(held)
        self.save(held)

    def _take_in(self, came: Footprint) -> None:
        held = self._held.get(came.name)
        if held is None:
            held = self.new_footprint(came.name)
        held.disks, held.volumes, held.reserved_mb = came.disks, came.volumes, 0
        held.taps = held.taps or came.taps
        held.domain = came.domain
        self.save(held)
        self.commons.void_ticket(self.host, came.name)

    def _account(self, held: Footprint) -> None:
        before = held.usage
        held.refresh()
        self._settle(before, held.usage)

    def _settle(self, before: tuple[int, int, int], now: tuple[int, int, int]) -> None:
        if before != now:
            memory_mb, disk_mb, vcpus = self._usage
            self._usage = (memory_mb + now[0] - before[0], disk_mb + now[1] - before[1], vcpus + now[2] - before[2])


def sent(held: Footprint) -> None:
    """The guest has left: taps and filters stay until they are cleaned up."""
    held.domain, held.disks, held.volumes, held.moving = None, {}, {}, None


class FakeCloud:
    """Fake hosts that know each other.

    Without a path they live in this object; with one they live in that directory, outlive the process, and each is
    open to one driver at a time.
    """

    def __init__(self, path: Path | str | None = None, size: HostSize | None = None, seed: int | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.size = size or HostSize()
        self._rng: random.Random = random.SystemRandom() if seed is None else random.Random(seed)  # noqa: S311
        self._commons: Commons = MemoryCommons() if self.path is None else DirectoryCommons(self.path)
        self._hosts: dict[str, FakeHypervisor] = {}
        self._lock = threading.Lock()

    def open(self, host: str) -> FakeHypervisor:
        """A host, made when it is new; DriverConfigError when another driver has its file open."""
        with self._lock:
            if isinstance(self._commons, DirectoryCommons):
                journal = Journal(self._commons.file_of(host, "jsonl"))
                return FakeHypervisor(host, self._commons, self.size, self._rng, journal)
            if host not in self._hosts:
                self._hosts[host] = FakeHypervisor(host, self._commons, self.size, self._rng, None)
            return self._hosts[host]

    def faults_file(self, host: str) -> Path | None:
        """The file that orders faults for a host's driver from outside; None in memory."""
        return self._commons.file_of(host, "faults.json") if isinstance(self._commons, DirectoryCommons) else None
