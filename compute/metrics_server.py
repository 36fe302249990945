"""Serves metrics to Prometheus at `metrics_listen`, in the time that a scrape has, whatever hangs.

A scrape asks the hypervisor and the database at most once every few seconds, each by one thread at a time. What does
not answer in time is served as it was last seen, and its age and reachability are metrics of their own.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from compute import __version__
from compute import metrics_families as families
from compute.errors import ConfigError
from compute.host import Host
from compute.metrics import Latest
from compute.metrics_families import HypervisorFacts, OwnFacts, RecordFacts
from db import audit
from virt.driver import ReportsUsage

LOG = logging.getLogger(__name__)
FRESH_S, PATIENCE_S = 5.0, 2.0


class Exporter(Collector):
    """The metrics of one daemon."""

    def __init__(self, host: Host, *, fresh_s: float = FRESH_S, patience_s: float = PATIENCE_S) -> None:
        self._host = host
        self._hypervisor = Latest(self._ask_hypervisor, fresh_s=fresh_s, patience_s=patience_s)
        self._records = Latest(self._ask_records, fresh_s=fresh_s, patience_s=patience_s)

    def collect(self) -> Iterator[Metric]:
        """Every family."""
        yield families.build_info(__version__, self._host.settings.host, self._host.driver.name)
        yield from families.own_families(self._own())
        facts, age_s = self._hypervisor.get()
        yield from families.hypervisor_families(facts, age_s, answers=self._hypervisor.answers)
        records, _ = self._records.get()
        yield from families.record_families(records, answers=self._records.answers)

    def _own(self) -> OwnFacts:
        tasks, lanes = self._host.tasks, (self._host.builds, self._host.migrations, self._host.snapshots)
        return OwnFacts(
            operations=tasks.meter.operations(),
            syncs=tasks.meter.syncs(),
            lanes={lane.name: lane.depth for lane in lanes},
            running=len(tasks.running()),
        )

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


def is_loopback(host: str) -> bool:
    """True if only this machine reaches that address; a name counts as what it resolves to now."""
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return False
    return all(ipaddress.ip_address(str(one[4][0]).partition("%")[0]).is_loopback for one in found)


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
        if not is_loopback(host):
            LOG.warning("metrics_listen = %s: whoever reaches it reads the names and figures of every guest", listen)

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)
