"""Production: RabbitMQ and a database server, three hosts, many boots, every cast twice; each is done once."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from compute.api import Accepted
from compute.orders import bell
from db import actions, compute_nodes
from tests.functional.harness import ADMIN
from tests.functional.outside import PlainClient, Rows, drive, insert_instance
from tests.integration.sites import Site, run_in_root

HOSTS = ("h1", "h2", "h3")
ROOMY = {"fake_vcpus": 64, "fake_memory_mb": 131072, "fake_local_gb": 2000}
pytestmark = pytest.mark.real


@pytest.fixture(params=["postgresql_url", "mariadb_url"])
def site(request: pytest.FixtureRequest, rabbit_url: str, tmp_path: Path) -> Iterator[Site]:
    """Three hosts."""
    url = str(request.getfixturevalue(request.param))
    with Site(tmp_path, rabbit_url, url, **ROOMY) as made:
        yield made.start(*HOSTS)


@pytest.fixture
def rows(site: Site) -> Iterator[Rows]:
    """The database as an administrator sees it."""
    looking = Rows(str(site.conf.sql_connection))
    yield looking
    looking.close()


def ring_again(site: Site, accepted: list[Accepted]) -> None:
    """Cast every order a second time."""
    for one in accepted:
        assert one.action_id is not None
        site.api.rpc.ring(ADMIN, bell(site.api.sealer, site.db.query(actions.get, one.action_id)))


def outside_boots(site: Site, url: str, count: int) -> None:
    """Rows written by hand and cast by a plain client, each twice with the request's id."""
    with PlainClient(url) as client:
        for number in range(count):
            key = insert_instance(str(site.conf.sql_connection), task_state=None)
            options = {"kind": "cast", "server": HOSTS[number % 3], "context": {"request_id": f"req-{key}"}}
            for _ in range(2):
                client.ask("run_instance", options=options, instance_id=key)


def by_command_line(site: Site, count: int) -> None:
    """Boots by nova-manage."""
    words = ("vm", "boot", "--name", "cli", "--image", "tiny", "--instance_type", "m1.tiny", "--count", str(count))
    subprocess.run(site.manage(*words), check=True, capture_output=True, timeout=60, **run_in_root())


def test_boots_of_every_kind_are_done_once_and_spread(site: Site, rabbit_url: str) -> None:
    api, plain, cli = (250, 30, 20) if "postgresql" in str(site.conf.sql_connection) else (40, 10, 10)
    begun = time.monotonic()
    accepted = site.api.create(ADMIN, image="tiny", instance_type="m1.tiny", min_count=api)
    ring_again(site, accepted)
    site.all_active(api)
    print(f"\n{api / (time.monotonic() - begun):.0f} boots/s by the API", flush=True)  # noqa: T201
    outside_boots(site, rabbit_url, plain)
    by_command_line(site, cli)
    spread = site.all_active(api + plain + cli)
    assert set(spread) == set(HOSTS)
    assert min(spread.values()) > sum(spread.values()) / 6
    assert set(site.started().values()) == {1}
    assert {one.attempt for one in site.db.query(actions.list_recent, limit=1000)} == {1}
    assert not any("Traceback" in one.log.read_text() for one in site.daemons.values())


def test_a_plain_client_drives_a_whole_life_over_rabbitmq(site: Site, rows: Rows, rabbit_url: str) -> None:
    with PlainClient(rabbit_url) as client:
        drive(client, rows)
        assert client.ask("nothing")["error"] == "NoSuchMethod"
        assert client.ask("get_lock", options={"version": "2.0"}, instance_id=1)["error"] == "UnsupportedVersion"
        told = client.ask("inject_file", instance_id=1, path="/x", file_contents="x" * 10_000_000)
        assert told["error"] == "InvalidInputError"
        assert client.call("get_console_topic") == "console.h1"
    assert "Traceback" not in site.daemons["h1"].log.read_text()


def test_two_schedulers_place_every_order_once_whoever_rings_and_dies(
    rabbit_url: str, postgresql_url: str, tmp_path: Path
) -> None:
    with Site(tmp_path, rabbit_url, postgresql_url, scheduler_mode="rpc", **ROOMY) as site:
        waiting = site.api.create(ADMIN, image="tiny", instance_type="m1.tiny", min_count=20)
        site.start("h1", "h2")
        first = site.scheduler("s1")
        site.scheduler("s2")
        ring_again(site, waiting)
        during = site.api.create(ADMIN, image="tiny", instance_type="m1.tiny", min_count=60)
        ring_again(site, during)
        first.kill()
        assert set(site.all_active(80)) == {"h1", "h2"}
        assert set(site.started().values()) == {1}
        assert sum(one.node.running_vms for one in site.db.query(compute_nodes.candidates)) == 80
