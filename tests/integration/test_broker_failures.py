"""The broker loses, restarts, crashes or is away: every accepted order is done all the same, once."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from compute.api import Accepted
from compute.errors import UnreachableError
from compute.states import Vm
from db import actions
from tests.functional.harness import ADMIN, eventually
from tests.functional.outside import PlainClient
from tests.integration.servers import RabbitMQ
from tests.integration.sites import Site, run_in_root

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),  # amqp's, when nobody answers
]


class Broker:
    """A virtual host of a broker that may be taken away."""

    def __init__(self, server: RabbitMQ) -> None:
        self.server, self.url = server, server.new_vhost()
        self.vhost = self.url.rpartition("/")[2]

    def queues(self) -> dict[str, int]:
        """What waits in which queue."""
        return self.server.queues(self.vhost)


@pytest.fixture
def broker(rabbitmq: RabbitMQ) -> Iterator[Broker]:
    """A broker of one's own; it is there again afterwards."""
    yield Broker(rabbitmq)
    gc.collect()
    if not rabbitmq._server.alive:
        rabbitmq.start()


@pytest.fixture
def site(broker: Broker, postgresql_url: str, tmp_path: Path) -> Iterator[Site]:
    """One host, not started."""
    with Site(tmp_path, broker.url, postgresql_url) as made:
        yield made


def boots(site: Site, count: int) -> list[Accepted]:
    """That many accepted boots."""
    return site.api.create(ADMIN, image="tiny", instance_type="m1.tiny", min_count=count)


def assert_done_once(site: Site, count: int) -> None:
    """Every boot is active, and was started once."""
    site.all_active(count, timeout_s=60)
    assert set(site.started().values()) == {1}
    assert len(site.started()) == count


def answers(site: Site) -> bool:
    """True if a call to h1 gets through."""
    try:
        return bool(site.call("h1", "get_console_topic") == "console.h1")
    except UnreachableError:
        return False


def frozen(site: Site) -> None:
    """A host that is registered and away, so that casts wait in its queue."""
    site.start("h1")
    site.daemon("h1").kill()


def test_casts_that_were_purged_are_rung_for_again(site: Site, broker: Broker) -> None:
    frozen(site)
    assert all(one.rang for one in boots(site, 10))
    broker.server.purge_queue("compute.h1", broker.vhost)
    site.start("h1")
    assert_done_once(site, 10)


def test_casts_wait_out_a_crash_of_the_broker_in_durable_queues(site: Site, broker: Broker) -> None:
    frozen(site)
    assert all(one.rang for one in boots(site, 10))
    broker.server.kill()
    broker.server.start()
    eventually(lambda: broker.queues().get("compute.h1") == 10, 60, "the queue again, with its casts")
    site.start("h1")
    assert_done_once(site, 10)


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_a_broker_that_goes_and_comes_back_under_a_daemon_loses_nothing(site: Site, broker: Broker, way: str) -> None:
    site.start("h1")
    before = boots(site, 5)
    getattr(broker.server, way)()
    during = boots(site, 5)
    assert not any(one.rang for one in during)
    broker.server.start()
    after = boots(site, 5)
    assert_done_once(site, len(before + during + after))
    eventually(lambda: answers(site), 60, "h1 on the bus again")


def test_an_order_is_done_while_there_is_no_broker_at_all(site: Site, broker: Broker) -> None:
    site.start("h1")
    broker.server.kill()
    order = boots(site, 1)[0]
    assert order.rang is False
    site.done(order, timeout_s=60)
    assert site.instance(order.instance_id).vm_state == Vm.ACTIVE


def test_a_daemon_whose_queue_was_deleted_serves_again_within_a_minute(site: Site, broker: Broker) -> None:
    site.start("h1")
    site.call("h1", "get_console_topic")
    broker.server.delete_queue("compute.h1", broker.vhost)
    eventually(lambda: "compute.h1" in broker.queues(), 60, "the queue again")
    eventually(lambda: answers(site), 30, "h1 on the bus again")


def test_connections_that_are_cut_off_come_back(site: Site, broker: Broker) -> None:
    site.start("h1")
    broker.server.close_connections(broker.vhost)
    eventually(lambda: all(one.rang for one in boots(site, 1)), 30, "a broker that takes casts")
    eventually(lambda: answers(site), 30, "h1 on the bus again")
    open_orders = site.db.query(actions.list_recent, limit=100)
    site.all_active(len(open_orders))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("rabbit://guest:guest@127.0.0.1:1/", "broker unreachable: 127.0.0.1:1: "),
        ("rabbit://guest:wrong@127.0.0.1:{port}/", "ACCESS_REFUSED"),
        ("rabbit://guest:guest@127.0.0.1:{port}/nowhere", "not found"),
    ],
)
def test_a_daemon_that_cannot_use_its_broker_ends_with_one_line(
    site: Site, broker: Broker, url: str, says: str
) -> None:
    for module in ("compute.service", "compute.scheduler_service"):
        config = site.config(transport_url=url.format(port=broker.server.port), host="h9", broker_timeout=5)
        command = [sys.executable, "-m", module, "--config-file", str(config), "--compute_driver", "fake"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **run_in_root())
        assert done.returncode == 1
        assert says in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_clients_with_durable_and_with_default_queues_share_the_exchange(site: Site, broker: Broker) -> None:
    site.start("h1")
    for durable in ("false", "true"):
        configuration = site.directory / "plain.conf"
        configuration.write_text(f"[oslo_messaging_rabbit]\namqp_durable_queues = {durable}\n")
        with PlainClient(broker.url, configuration=configuration) as client:
            assert client.call("get_console_topic") == "console.h1"
            client.cast("get_console_topic")
    assert "compute.h1" in broker.queues()
