"""From what the daemon counts and the hypervisor says to Prometheus's metric families: names, help, labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from compute.metrics import BUCKETS_S, Histogram
from virt.spec import BlockStats, GuestUsage, HostResources, InterfaceStats

_MIB, _GIB = 1024**2, 1024**3
_GUEST = ("instance", "uuid")
STALE_S = 300.0  # after which a guest's last figures are no figures any more


@dataclass(frozen=True, slots=True)
class HypervisorFacts:
    """What one look at the hypervisor found."""

    guests: Sequence[GuestUsage]
    host: HostResources


@dataclass(frozen=True, slots=True)
class RecordFacts:
    """What one look at the database found: this host's instances by vm_state, its open orders by state."""

    instances: Mapping[str, int]
    orders: Mapping[str, int]


def gauge(name: str, words: str, value: float) -> GaugeMetricFamily:
    """One number."""
    return GaugeMetricFamily(f"micronova_{name}", words, value=value)


def by_label(name: str, words: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    """A number for each value of a label."""
    family = GaugeMetricFamily(f"micronova_{name}", words, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family


def build_info(version: str, host: str, driver: str) -> GaugeMetricFamily:
    """1, with what runs in its labels."""
    family = GaugeMetricFamily("micronova_build_info", "What runs here.", labels=("version", "host", "driver"))
    family.add_metric((version, host, driver), 1)
    return family


def durations(name: str, words: str, labels: Sequence[str], found: Iterable[tuple[Sequence[str], Histogram]]) -> Metric:
    """A histogram for each set of labels."""
    family = HistogramMetricFamily(f"micronova_{name}", words, labels=labels)
    for key, histogram in found:
        total, buckets = 0, []
        for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), histogram.counts, strict=True):
            total += count
            buckets.append((bound, total))
        family.add_metric(key, buckets, histogram.sum_s)
    return family


@dataclass(frozen=True, slots=True)
class OwnFacts:
    """What the daemon counts itself: durations by (task, outcome), of syncs; orders by lane; operations that run."""

    operations: Mapping[tuple[str, str], Histogram]
    syncs: Histogram
    lanes: Mapping[str, int]
    running: int


def own_families(own: OwnFacts) -> Iterator[Metric]:
    """What the daemon counts itself."""
    words = "Operations, or legs of one, by task and outcome (done, failed, aborted, interrupted)."
    yield durations("operation_duration_seconds", words, ("task", "outcome"), own.operations.items())
    yield durations("sync_duration_seconds", "Power-state syncs.", (), [((), own.syncs)])
    yield by_label("lane_orders", "Orders that run or wait in a lane.", "lane", dict(own.lanes))
    yield gauge("operations_running", "Operations that run now.", own.running)


def hypervisor_families(facts: HypervisorFacts | None, age_s: float | None, *, answers: bool) -> Iterator[Metric]:
    """Whether the hypervisor answers, and what it last said, unless that is too long ago."""
    yield gauge("hypervisor_up", "1 if the hypervisor answers.", int(answers))
    if facts is None or age_s is None:
        return
    yield gauge("hypervisor_age_seconds", "Age of what is told of guests and host.", age_s)
    if age_s < STALE_S:
        yield from host_families(facts.host)
        yield from guest_families(facts.guests)


def record_families(facts: RecordFacts | None, *, answers: bool) -> Iterator[Metric]:
    """Whether the database answers, and what it says of this host."""
    yield gauge("database_up", "1 if the database answers.", int(answers))
    if facts is not None:
        yield by_label("instances", "Instances of this host.", "vm_state", dict(facts.instances))
        yield by_label("open_orders", "Orders of this host that are open.", "state", dict(facts.orders))


def host_families(host: HostResources) -> Iterator[Metric]:
    """The host's resources, in all and in use."""
    yield by_label("host_vcpus", "CPUs of the host.", "kind", {"total": host.vcpus, "used": host.vcpus_used})
    memory = {"total": host.memory_mb * _MIB, "used": host.memory_mb_used * _MIB}
    yield by_label("host_memory_bytes", "Memory of the host.", "kind", memory)
    disk = {"total": host.local_gb * _GIB, "used": host.local_gb_used * _GIB}
    yield by_label("host_disk_bytes", "File system of the instances.", "kind", disk)


def guest_families(guests: Sequence[GuestUsage]) -> Iterator[Metric]:
    """What each guest uses."""
    cpu = CounterMetricFamily("micronova_instance_cpu_seconds", "CPU time since the guest's start.", labels=_GUEST)
    vcpus = GaugeMetricFamily("micronova_instance_vcpus", "Virtual CPUs.", labels=_GUEST)
    power = GaugeMetricFamily("micronova_instance_power_state", "Power state, 2011.2's code.", labels=_GUEST)
    memory = GaugeMetricFamily("micronova_instance_memory_bytes", "Memory that the guest has now.", labels=_GUEST)
    limit = GaugeMetricFamily("micronova_instance_memory_max_bytes", "Memory it may have.", labels=_GUEST)
    for guest in guests:
        key = (guest.name, guest.uuid)
        cpu.add_metric(key, guest.cpu_time_ns / 1e9)
        vcpus.add_metric(key, guest.vcpus)
        power.add_metric(key, int(guest.power))
        if guest.mem_kb is not None:
            memory.add_metric(key, guest.mem_kb * 1024)
        if guest.max_mem_kb is not None:
            limit.add_metric(key, guest.max_mem_kb * 1024)
    yield from (cpu, vcpus, power, memory, limit)
    yield from _devices("disk", "disk", BlockStats.__slots__, [(one, one.disks) for one in guests])
    yield from _devices("network", "interface", InterfaceStats.__slots__, [(one, one.interfaces) for one in guests])


def _devices(
    kind: str,
    label: str,
    counters: Iterable[str],
    found: Sequence[tuple[GuestUsage, Mapping[str, BlockStats] | Mapping[str, InterfaceStats]]],
) -> Iterator[Metric]:
    for counter in counters:
        words = f"The {label}'s {counter.replace('_', ' ')} since the guest's start."
        family = CounterMetricFamily(f"micronova_instance_{kind}_{counter}", words, labels=(*_GUEST, label))
        for guest, devices in found:
            for device, stats in devices.items():
                family.add_metric((guest.name, guest.uuid, device), getattr(stats, counter))
        yield family
