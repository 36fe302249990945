"""What a host costs while nothing happens: state sync, resource report, restart, memory, start."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator

from bench.places import Place
from bench.population import populate
from bench.process import cpu_s, rss_mb
from bench.rows import (
    PEER_READY_S,
    PEER_RESOURCE_UPDATE_1000_S,
    PEER_RESTART_1000_S,
    PEER_RSS_MIB,
    PEER_SYNC_1000_S,
    Row,
)
from tests.functional.harness import Daemon, Deployment
from virt.fake.hypervisor import FakeCloud

HOST = "upkeep"
ROUNDS = 7
STARTS = 5
SETTLE_S = 1.0
SYNC_TARGETS_MS = {1000: 50.0, 10_000: 500.0}


def sync_rows(place: Place, count: int) -> Iterator[Row]:
    """A round of the state sync with `count` unchanged guests, and a resource report beside them, in this process."""
    host = f"crowd-{count}"
    place = place.room(host)
    with Deployment(place.directory, **place.options) as deployment:
        populate(deployment, host, count, deployment.cloud)
        service = deployment.start(host).services[host]
        if service.sync.run():
            raise RuntimeError("the sync changed something: the figures would not count")
        yield Row(
            what=f"state sync of {count:,} unchanged: CPU", where=place.name, unit="ms",
            value=_cpu_ms(service.sync.run), at_most=SYNC_TARGETS_MS.get(count),
            peer=PEER_SYNC_1000_S * 1000 if count == 1000 else None,
        )  # fmt: skip
        yield Row(
            what=f"resource report with {count:,} instances", where=place.name, unit="ms",
            value=_cpu_ms(service.host.report_resources),
            peer=PEER_RESOURCE_UPDATE_1000_S * 1000 if count == 1000 else None,
        )  # fmt: skip


def _cpu_ms(act: Callable[[], object]) -> float:
    taken = []
    for _ in range(ROUNDS):
        begun = time.thread_time()
        act()
        taken.append(time.thread_time() - begun)
    return statistics.median(taken) * 1000


def start_rows(place: Place, count: int) -> Iterator[Row]:
    """A daemon process: from its start to the first message it could take, empty and with `count` instances."""
    place = place.room(HOST)
    with _daemon(place):
        pass  # registers the host, and has the byte code compiled
    ready_ms, cpu_ms, idle_mb = _start(place)
    yield Row(what="ready", where=place.name, value=ready_ms, unit="ms", at_most=1000, peer=PEER_READY_S * 1000)
    yield Row(what="ready: CPU", where=place.name, value=cpu_ms, unit="ms")
    yield Row(what="idle memory", where=place.name, value=idle_mb, unit="MB", at_most=100, peer=PEER_RSS_MIB * 1.048576)
    with Deployment(place.directory, **place.options) as deployment:
        populate(deployment, HOST, count, FakeCloud(place.directory / "fake"))
    ready_ms, cpu_ms, _ = _start(place)
    yield Row(
        what=f"restart with {count:,} instances", where=place.name, value=ready_ms, unit="ms", at_most=1000,
        peer=PEER_RESTART_1000_S * 1000,
    )  # fmt: skip
    yield Row(what=f"restart with {count:,} instances: CPU", where=place.name, value=cpu_ms, unit="ms")


def _start(place: Place) -> tuple[float, float, float]:
    """Milliseconds until ready and of CPU until then, the best of some starts, and MB a second later."""
    times, cpu, sizes = [], [], []
    for _ in range(STARTS):
        begun = time.perf_counter()
        with _daemon(place) as daemon:
            times.append((time.perf_counter() - begun) * 1000)
            assert daemon.process is not None
            cpu.append(cpu_s(daemon.process.pid) * 1000)
            time.sleep(SETTLE_S)
            sizes.append(rss_mb(daemon.process.pid))
    return min(times), min(cpu), max(sizes)


def _daemon(place: Place) -> Daemon:
    """One that keeps its byte code, as installed ones do, whatever this environment says; not beside the source."""
    kept = f"PYTHONPYCACHEPREFIX={place.directory / 'bytecode'}"
    return Daemon(place.directory, HOST, inside=("env", "-u", "PYTHONDONTWRITEBYTECODE", kept), **place.options)
