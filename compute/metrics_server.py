"""Serves metrics to Prometheus at `metrics_listen`, in the time that a scrape has, whatever hangs.

A scrape asks the hypervisor and the database at most once every few seconds, each by one thread at a time. What does
not answer in time is served as it was last seen, and its age and reachability are metrics of their own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from compute import __version__
from compute import metrics_families as families
from compute.errors import ConfigError
from compute.host import Host
from compute.metrics import Latest
from compute.metrics_families import HypervisorFacts, RecordFacts
from db import audit
from virt.driver import ReportsUsage

LOG = logging.getLogger(__name__)
FRESH_S, PATIENCE_S = 5.0, 2.0
STALE_S = 300.0  # after which a guest's last figures are no figures any more


class Exporter(Collector):
    """The metrics of one daemon."""

    def __init__(self, host: Host, *, fresh_s: float = FRESH_S, patience_s: float = PATIENCE_S) -> None:
        self._host = host
        self._hypervisor = Latest(self._ask_hypervisor, fresh_s=fresh_s, patience_s=patience_s)
        self._records = Latest(self._ask_records, fresh_s=fresh_s, patience_s=patience_s)

    def collect(self) -> Iterator[Metric]:
        """Every family."""
        yield families.build_info(__version__, self._host.settings.host, self._host.driver.name)
        yield from self._own()
        yield from self._of_hypervisor()
        yield from self._of_records()

    def _own(self) -> Iterator[Metric]:
        meter = self._host.tasks.meter
        words = "Operations, or legs of one, by task and outcome."
        yield families.durations("operation_duration_seconds", words, ("task", "outcome"), meter.operations().items())
        yield families.durations("sync_duration_seconds", "Power-state syncs.", (), [((), meter.syncs())])
        lanes = {lane.name: lane for lane in (self._host.builds, self._host.migrations, self._host.snapshots)}
        depths: dict[str, float] = {name: lane.depth for name, lane in lanes.items()}
        yield families.by_label("lane_orders", "Orders that run or wait in a lane.", "lane", depths)
        yield families.gauge("operations_running", "Operations that run now.", len(self._host.tasks.running()))

    def _of_hypervisor(self) -> Iterator[Metric]:
        facts, age_s = self._hypervisor.get()
        yield families.gauge("hypervisor_up", "1 if the hypervisor answers.", int(self._hypervisor.answers))
        if facts is None or age_s is None:
            return
        yield families.gauge("hypervisor_age_seconds", "Age of what is told of guests and host.", age_s)
        if age_s < STALE_S:
            yield from families.host_families(facts.host)
            yield from families.guest_families(facts.guests)

    def _of_records(self) -> Iterator[Metric]:
        facts, _ = self._records.get()
        yield families.gauge("database_up", "1 if the database answers.", int(self._records.answers))
        if facts is not None:
            yield families.by_label("instances", "Instances of this host.", "vm_state", dict(facts.instances))
            yield families.by_label("open_orders", "Orders of this host that are open.", "state", dict(facts.orders))

    def _ask_hypervisor(self) -> HypervisorFacts:
        driver = self._host.driver
        guests = driver.usage() if isinstance(driver, ReportsUsage) else ()
        return HypervisorFacts(guests, driver.host_resources())

    def _ask_records(self) -> RecordFacts:
        return RecordFacts(*self._host.db.query(audit.counts, self._host.settings.host))


def address_of(listen: str) -> tuple[str, int]:
    """Host and port of `metrics_listen`; ConfigError when it names none."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"metrics_listen = {listen}: must be HOST:PORT")
    return host.strip("[]"), int(port)


class MetricsServer:
    """An HTTP server for Prometheus."""

    def __init__(self, listen: str, exporter: Exporter) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(exporter)
        host, port = address_of(listen)
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as exc:
            raise ConfigError(f"metrics_listen = {listen}: {exc.strerror}") from exc
        LOG.info("metrics at http://%s/metrics", listen)

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)
