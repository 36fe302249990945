"""What Prometheus is told: everything it may ask for, in a number of calls that no number of guests changes."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence

import pytest
from prometheus_client.parser import text_string_to_metric_families

from compute.errors import ConfigError
from compute.metrics_server import Exporter, MetricsServer, address_of
from tests.functional.harness import ADMIN, Deployment, eventually
from tests.integration.processes import free_port
from virt.errors import HypervisorUnreachableError, VirtError
from virt.spec import GuestUsage

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def listen() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def measured(deploy: Callable[..., Deployment], listen: str) -> Deployment:
    """A host that serves metrics."""
    return deploy("h1", metrics_listen=listen)


def scrape(listen: str) -> Samples:
    """Every sample by name and labels."""
    with urllib.request.urlopen(f"http://{listen}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    families = text_string_to_metric_families(text)
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"micronova_{name}", frozenset(labels.items())]


def named(samples: Samples, name: str) -> list[float]:
    return [found for (sample, _), found in samples.items() if sample == f"micronova_{name}"]


def test_a_guest_has_its_figures(measured: Deployment, listen: str) -> None:
    instance_id = measured.boot()
    found = scrape(listen)
    guest = {"instance": f"instance-{instance_id:08x}", "uuid": measured.instance(instance_id).uuid}
    assert value(found, "instance_cpu_seconds_total", **guest) >= 0
    assert value(found, "instance_memory_bytes", **guest) == 512 * 1024**2
    assert value(found, "instance_power_state", **guest) == 1
    assert value(found, "instance_disk_read_bytes_total", **guest, disk="root") >= 0
    assert len(named(found, "instance_network_rx_bytes_total")) == 1


def test_the_host_its_orders_and_its_build_have_their_figures(measured: Deployment, listen: str) -> None:
    measured.boot()
    found = scrape(listen)
    assert value(found, "host_vcpus", kind="used") == 1
    assert value(found, "instances", vm_state="active") == 1
    assert value(found, "open_orders", state="running") == 0
    assert named(found, "build_info") == [1]
    eventually(lambda: value(scrape(listen), "lane_orders", lane="build") == 0)  # its worker has its end to write first


def test_operations_are_counted_by_outcome_with_their_durations(measured: Deployment, listen: str) -> None:
    instance_id = measured.boot()
    measured.drivers["h1"].faults.fail("pause", VirtError("no"))
    with pytest.raises(Exception, match="no"):
        measured.done(measured.api.pause(ADMIN, instance_id))
    found = scrape(listen)
    assert value(found, "operation_duration_seconds_count", task="spawning", outcome="done") == 1
    assert value(found, "operation_duration_seconds_count", task="pausing", outcome="failed") == 1
    assert value(found, "operation_duration_seconds_bucket", task="spawning", outcome="done", le="+Inf") == 1


@pytest.mark.parametrize("guests", [1, 6])
def test_a_scrape_asks_the_hypervisor_twice_however_many_guests(measured: Deployment, listen: str, guests: int) -> None:
    for _ in range(guests):
        measured.boot()
    calls = measured.drivers["h1"].calls
    before = calls.copy()
    assert len(named(scrape(listen), "instance_vcpus")) == guests
    scrape(listen)  # soon after the first, so answered from what it found
    assert calls - before == {"usage": 1, "host_resources": 1}


@pytest.fixture
def hanging(deploy: Callable[..., Deployment]) -> Iterator[tuple[Exporter, threading.Event]]:
    """An exporter whose hypervisor can be made to hang."""
    cloud = deploy("h1")
    cloud.boot()
    release, hangs = threading.Event(), threading.Event()
    driver = cloud.drivers["h1"]
    usage = driver.usage

    def ask() -> Sequence[GuestUsage]:
        if hangs.is_set():
            release.wait(30)
        return usage()

    driver.usage = ask  # type: ignore[method-assign]
    yield Exporter(cloud.services["h1"].host, fresh_s=0.0, patience_s=0.5), hangs
    release.set()


def told(exporter: Exporter) -> dict[str, list[float]]:
    return {family.name: [sample.value for sample in family.samples] for family in exporter.collect()}


def test_a_hypervisor_that_hangs_holds_no_scrape_up_and_is_told_of(
    hanging: tuple[Exporter, threading.Event],
) -> None:
    exporter, hangs = hanging
    assert told(exporter)["micronova_hypervisor_up"] == [1]
    hangs.set()
    threads, begun = threading.active_count(), time.monotonic()
    for _ in range(3):
        found = told(exporter)
    assert time.monotonic() - begun < 3
    assert threading.active_count() <= threads + 1
    assert found["micronova_hypervisor_up"] == [0]
    assert found["micronova_hypervisor_age_seconds"][0] > 0.9
    assert len(found["micronova_instance_vcpus"]) == 1
    assert found["micronova_database_up"] == [1]


def test_a_hypervisor_that_refuses_is_down(measured: Deployment, listen: str) -> None:
    measured.drivers["h1"].faults.fail("usage", HypervisorUnreachableError("cut"))
    assert value(scrape(listen), "hypervisor_up") == 0
    assert value(scrape(listen), "hypervisor_up") == 1


@pytest.mark.parametrize("listen", ["9100", "host:", "host:many", ":0", "h:70000"])
def test_an_address_that_is_none_is_refused(listen: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        address_of(listen)


def test_a_port_that_is_taken_is_refused(measured: Deployment, listen: str) -> None:
    with pytest.raises(ConfigError, match="in use"):
        MetricsServer(listen, Exporter(measured.services["h1"].host))


@pytest.mark.parametrize(("host", "open_to_others"), [("127.0.0.1", False), ("[::1]", False), ("", True)])
def test_an_address_that_others_reach_is_warned_of(
    one_host: Deployment, caplog: pytest.LogCaptureFixture, host: str, open_to_others: bool
) -> None:
    everybody = "0.0.0.0"  # noqa: S104 - that is what is warned of
    MetricsServer(f"{host or everybody}:{free_port()}", Exporter(one_host.services["h1"].host)).close()
    assert ("whoever reaches it reads" in caplog.text) == open_to_others
