"""Scheduling drivers: which filters hold, and which of the hosts that pass is chosen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from compute.errors import ConfigError
from compute.scheduling import filters, weights
from compute.scheduling.filters import Filter
from compute.scheduling.loading import load
from compute.scheduling.request import Request
from db.compute_nodes import Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The flags that drivers take; compute.scheduler_conf declares and reads them."""

    max_cores: int = 16
    scheduler_filters: tuple[str, ...] = filters.NAMES
    ram_weight_multiplier: float = 1.0
    cpu_weight_multiplier: float = 0.0
    disk_weight_multiplier: float = 0.0
    scheduler_host_subset_size: int = 1


class SchedulingDriver(ABC):
    """How hosts are picked. One object serves every thread, so a driver keeps no state between calls."""

    def __init__(self, host_filters: Sequence[Filter]) -> None:
        """Every host must pass these filters; include `filters.ALWAYS` (`filters.chosen` does)."""
        self.filters = tuple(host_filters)

    @abstractmethod
    def choose(self, fits: Sequence[Candidate], request: Request) -> Candidate:
        """Pick one of the hosts that passed every filter; there is at least one."""


class AnyHost(SchedulingDriver):
    """Any host that passes: 2011.2's chance and zone schedulers."""

    def choose(self, fits: Sequence[Candidate], request: Request) -> Candidate:  # noqa: ARG002
        """One by lot."""
        return weights.any_of(fits)


class FewestCores(SchedulingDriver):
    """The host whose instances have the fewest vCPUs: 2011.2's simple scheduler."""

    def choose(self, fits: Sequence[Candidate], request: Request) -> Candidate:  # noqa: ARG002
        """The least used, ties by lot."""
        return weights.best(fits, [-candidate.node.vcpus_used for candidate in fits])


class BestWeight(SchedulingDriver):
    """The host with the best weights."""

    def __init__(
        self,
        host_filters: Sequence[Filter],
        multipliers: Mapping[weights.Weight, float],
        subset_size: int = 1,
    ) -> None:
        """subset_size: choose by lot among that many of the best, so that many schedulers do not all take one."""
        super().__init__(host_filters)
        self._multipliers, self._subset_size = multipliers, subset_size

    def choose(self, fits: Sequence[Candidate], request: Request) -> Candidate:  # noqa: ARG002
        """The best, ties by lot."""
        return weights.best(fits, weights.scores(fits, self._multipliers), self._subset_size)


def chance(_settings: Settings) -> SchedulingDriver:
    """Any host that is up and has room, whatever its zone."""
    return AnyHost(filters.chosen(["enabled", "same_host", "different_host"]))


def zone(_settings: Settings) -> SchedulingDriver:
    """Any host of the zone."""
    return AnyHost(filters.chosen(["enabled", "zone", "same_host", "different_host"]))


def simple(settings: Settings) -> SchedulingDriver:
    """The host of the zone with the fewest vCPUs in use, up to max_cores."""
    held = filters.chosen(["enabled", "zone", "same_host", "different_host"])
    return FewestCores([*held, filters.at_most_cores(settings.max_cores)])


def filtering(settings: Settings) -> SchedulingDriver:
    """The hosts that pass `scheduler_filters`, best weight first."""
    multipliers: Mapping[weights.Weight, float] = {
        weights.free_ram: settings.ram_weight_multiplier,
        weights.free_vcpus: settings.cpu_weight_multiplier,
        weights.free_disk: settings.disk_weight_multiplier,
    }
    return BestWeight(filters.chosen(settings.scheduler_filters), multipliers, settings.scheduler_host_subset_size)


DRIVERS: Mapping[str, Callable[[Settings], SchedulingDriver]] = {
    "filter": filtering,
    "chance": chance,
    "zone": zone,
    "simple": simple,
    "nova.scheduler.chance.ChanceScheduler": chance,
    "nova.scheduler.zone.ZoneScheduler": zone,
    "nova.scheduler.simple.SimpleScheduler": simple,
}


def load_driver(name: str, settings: Settings) -> SchedulingDriver:
    """The driver of that name, alias of 2011.2, or dotted path of a callable that makes one from Settings.

    Raises ConfigError when there is none.
    """
    if name in DRIVERS:
        return DRIVERS[name](settings)
    if "." not in name:
        known = ", ".join(known for known in DRIVERS if "." not in known)
        raise ConfigError(f"scheduler_driver: {name!r} is none of {known}, nor a dotted path")
    driver = load(name, "scheduler_driver")(settings)
    if not isinstance(driver, SchedulingDriver):
        raise ConfigError(f"scheduler_driver: {name!r} made {type(driver).__name__}, which is no SchedulingDriver")
    return driver
