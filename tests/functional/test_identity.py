"""One daemon owns a host: whoever else starts in its place refuses and writes nothing."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compute import identity
from compute.errors import HostConflictError
from compute.identity import BINARY
from compute.service import Service
from db import services
from db.models import metadata
from tests.functional.harness import Daemon, Deployment, eventually
from virt.fake.driver import FakeDriver

LIVELY = {"services", "compute_nodes"}  # the living daemon reports in these


def snapshot(cloud: Deployment, *, without: frozenset[str] | set[str] = frozenset()) -> dict[str, list[Any]]:
    """Every row of every table."""
    with cloud.db.read() as tx:
        tables = [table for table in metadata.sorted_tables if table.name not in without]
        return {table.name: sorted(map(tuple, tx.execute(table.select())), key=repr) for table in tables}


def refused(cloud: Deployment, host: str, match: str, **overrides: Any) -> None:
    cloud.overrides.update(overrides)
    with pytest.raises(HostConflictError, match=match):
        Service(cloud.conf_for(host), driver=FakeDriver(cloud.cloud)).start()


def test_a_renamed_host_refuses_to_start(deploy: Callable[..., Deployment]) -> None:
    cloud = deploy("h1")
    cloud.boot()
    cloud.stop("h1")
    before = snapshot(cloud)
    refused(cloud, "renamed", "belongs to host h1, which has 1 instances, and the configuration calls this host")
    assert snapshot(cloud) == before
    assert not (cloud.directory / "compute_id.renamed").exists()


def test_a_new_host_beside_a_living_one_starts(deploy: Callable[..., Deployment]) -> None:
    cloud = deploy("h1")
    cloud.boot()
    cloud.start("h2")
    assert cloud.db.query(services.find, "h2", BINARY) is not None


def test_a_second_daemon_of_the_same_state_directory_refuses(one_host: Deployment) -> None:
    before = snapshot(one_host, without=LIVELY)
    refused(one_host, "h1", "another nova-compute runs for host h1")
    assert snapshot(one_host, without=LIVELY) == before


def test_another_state_directory_is_not_the_hosts(one_host: Deployment, tmp_path: Path) -> None:
    one_host.stop("h1")
    before = snapshot(one_host)
    options = {"sql_connection": f"sqlite:///{one_host.directory}/nova.sqlite"}
    refused(one_host, "h1", "belongs to the daemon with compute_id", state_path=str(tmp_path / "other"), **options)
    assert snapshot(one_host) == before


def copied(cloud: Deployment, elsewhere: Path) -> dict[str, str]:
    """The host's identity on another machine, and options that use it there."""
    elsewhere.mkdir()
    shutil.copy(cloud.directory / "compute_id.h1", elsewhere)
    return {"state_path": str(elsewhere), "sql_connection": f"sqlite:///{cloud.directory}/nova.sqlite"}


def test_a_copied_identity_refuses_while_the_real_one_lives(
    deploy: Callable[..., Deployment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = deploy("h1", report_interval=0.1)
    monkeypatch.setattr(identity, "machine_id", lambda: "another machine")
    before = snapshot(cloud, without=LIVELY)
    owner = cloud.services["h1"].host.tasks.owner
    refused(cloud, "h1", "served by a live daemon on another machine", **copied(cloud, tmp_path / "copy"))
    row = cloud.db.query(services.find, "h1", BINARY)
    assert row is not None
    assert row.owner == owner
    assert snapshot(cloud, without=LIVELY) == before


def test_a_host_that_was_moved_to_another_machine_starts(
    deploy: Callable[..., Deployment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = deploy("h1", report_interval=0.1)
    cloud.stop("h1")
    monkeypatch.setattr(identity, "machine_id", lambda: "another machine")
    cloud.overrides.update(copied(cloud, tmp_path / "copy"))
    cloud.start("h1")
    row = cloud.db.query(services.find, "h1", BINARY)
    assert row is not None
    assert row.machine == "another machine"


def start(cloud: Deployment, results: list[str]) -> None:
    """A daemon with a driver of its own, as it would have in a process of its own."""
    service = Service(cloud.conf_for("h1"), driver=FakeDriver(cloud.cloud))
    try:
        service.start()
    except HostConflictError:
        results.append("refused")
    else:
        cloud.services["h1"] = service
        results.append("started")


def test_two_first_starts_at_one_moment_make_one_host(deploy: Callable[..., Deployment]) -> None:
    cloud, results = deploy(), list[str]()
    threads = [threading.Thread(target=start, args=(cloud, results)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["refused", "started"]


def test_after_kill_minus_nine_the_host_starts_again_at_once(tmp_path: Path, template: Path) -> None:
    with Deployment(tmp_path, template) as cloud, Daemon(tmp_path, "h1") as daemon:
        cloud.boot()
        daemon.kill()
        daemon.start()
        eventually(lambda: cloud.boot(wait=True))
