"""Costs on RabbitMQ and PostgreSQL: what test_costs.py counts on the embedded default.

A boot holds the project's default group there, so that creates of one project count its quota one after the other: one
statement more than on SQLite, whose writers take turns anyway. An address takes one statement less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from db import migration
from db.session import Database
from tests.functional.costs import STILL, Meter
from tests.functional.harness import Deployment, seed

COLD, WARM = (12, 4, 1), (11, 4, 1)  # statements, commits, messages


@pytest.fixture
def deploy(tmp_path: Path, postgresql_url: str, rabbit_url: str) -> Iterator[Callable[..., Deployment]]:
    """Make a deployment of one host without timers, warmed up by two boots: the second prepares the statements."""
    database = Database(postgresql_url)
    migration.sync(database)
    database.run(seed, tmp_path)
    database.dispose()
    with ExitStack() as stack:

        def make(**overrides: Any) -> Deployment:
            urls = {"sql_connection": postgresql_url, "transport_url": rabbit_url}
            deployment = stack.enter_context(Deployment(tmp_path, **STILL, **urls, **overrides)).start("h1")
            deployment.boot()
            deployment.boot()
            return deployment

        yield make


def test_a_boot_with_a_recent_list_of_hosts_costs_eleven_statements(deploy: Callable[..., Deployment]) -> None:
    with Meter(deploy(scheduler_candidates_ttl=60)) as meter:
        _, cost = meter.boot()
    assert cost.figures == WARM, cost.statements
    assert cost.programs == []


def test_a_boot_that_reads_the_hosts_costs_one_more(deploy: Callable[..., Deployment]) -> None:
    with Meter(deploy()) as meter:
        _, cost = meter.boot()
    assert cost.figures == COLD, cost.statements
