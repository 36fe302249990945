"""Costs of the embedded default: API and daemon together, in the steady state of a deployment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bench.population import populate
from compute.api import Accepted
from compute.service import Service
from tests.functional.costs import STILL, Cost, Meter, counted
from tests.functional.harness import ADMIN, Deployment

Deploy = Callable[..., Deployment]

COSTS = {  # statements, commits, messages
    "pause": (9, 3, 1),
    "unpause": (9, 3, 1),
    "stop": (9, 3, 1),
    "start": (9, 3, 1),
    "suspend": (9, 3, 1),
    "resume": (9, 3, 1),
    "reboot": (9, 3, 1),
    "delete": (16, 3, 1),
}


@pytest.fixture
def still(deploy: Deploy) -> Deployment:
    """One fake host without timers, warmed up by one boot."""
    deployment = deploy("h1", **STILL)
    deployment.boot()
    return deployment


def test_a_boot_costs_at_most_twelve_statements_and_six_commits(still: Deployment) -> None:
    with Meter(still) as meter:
        _, cost = meter.boot()
    assert cost.figures == (12, 4, 1), cost.statements


def test_a_boot_with_a_recent_list_of_hosts_costs_one_statement_less(deploy: Deploy) -> None:
    deployment = deploy("h1", **STILL, scheduler_candidates_ttl=60)
    deployment.boot()
    with Meter(deployment) as meter:
        _, cost = meter.boot()
    assert cost.figures == (11, 4, 1), cost.statements


def test_the_hundredth_boot_costs_what_the_second_does(still: Deployment) -> None:
    with Meter(still) as meter:
        _, second = meter.boot()
        for _ in range(97):
            still.boot()
        _, hundredth = meter.boot()
    assert hundredth.statements == second.statements


def test_operations_cost_what_they_did(still: Deployment) -> None:
    with Meter(still) as meter:
        instance_id, _ = meter.boot()
        found = {verb: meter.cost_of(_operation(still, verb, instance_id)).figures for verb in COSTS}
    assert found == COSTS


def test_the_fake_driver_starts_no_program(still: Deployment) -> None:
    with Meter(still) as meter:
        instance_id, boot = meter.boot()
        delete = meter.cost_of(_operation(still, "delete", instance_id))
    assert (boot.programs, delete.programs) == ([], [])


def _operation(deployment: Deployment, verb: str, instance_id: int) -> Callable[[], Accepted]:
    return lambda: getattr(deployment.api, verb)(ADMIN, instance_id)


@contextmanager
def crowded(deployment: Deployment, count: int) -> Iterator[Service]:
    """A started host with `count` running guests and no timers."""
    populate(deployment, "h1", count, deployment.cloud)
    yield deployment.start("h1").services["h1"]


def test_a_sync_of_a_thousand_unchanged_instances_is_one_listing_and_no_write(deploy: Deploy) -> None:
    with crowded(deploy(**STILL), 1000) as service:
        calls, cost = _during(service, service.sync.run)
    assert calls == {"list_guests": 1}
    assert len(cost.statements) <= 3, cost.statements
    assert cost.writes == []


def test_a_resource_report_costs_the_same_at_any_number_of_instances(deploy: Deploy) -> None:
    found = []
    for count in (10, 500):
        with crowded(deploy(**STILL), count) as service:
            calls, cost = _during(service, service.host.report_resources)
            found.append((calls, cost.statements, cost.commits))
    assert found[0] == found[1]
    assert found[0][0] == {"host_resources": 1}
    assert len(found[0][1]) <= 4


def _during(service: Service, act: Callable[[], Any]) -> tuple[Counter[str], Cost]:
    driver = service.host.driver
    before = Counter(driver.calls)
    with counted() as cost:
        act()
    return Counter(driver.calls) - before, cost


def test_a_restart_costs_the_same_at_any_number_of_instances(deploy: Deploy) -> None:
    found = []
    for count in (10, 1000):
        deployment = deploy(**STILL)
        with crowded(deployment, count):
            deployment.stop("h1")
        driver = deployment.drivers["h1"]
        driver.calls.clear()
        with counted() as cost:
            deployment.start("h1")
        found.append((len(cost.statements), cost.commits, dict(driver.calls)))
    assert found[0] == found[1]
    assert found[0][0] <= 12
