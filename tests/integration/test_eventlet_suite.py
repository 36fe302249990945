"""The same scenarios under native threads and under eventlet, on a real broker and real databases."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from compute.states import Vm
from tests.functional.harness import ADMIN, eventually
from tests.functional.scenarios import SCENARIOS, Scenario
from tests.integration.conftest import RabbitMQ
from tests.integration.sites import Site

pytestmark = pytest.mark.real
WAYS = [("threading", "postgresql"), ("eventlet", "postgresql"), ("eventlet", "mariadb")]


@pytest.fixture(scope="module", params=WAYS, ids="-".join)
def site(
    request: pytest.FixtureRequest, rabbitmq: RabbitMQ, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Two hosts run in one of the ways."""
    executor, database = request.param
    url = request.getfixturevalue(database).create_database()
    directory = tmp_path_factory.mktemp(f"{executor}-{database}")
    options = {"executor": executor, "fake_vcpus": 64, "fake_memory_mb": 131072, "fake_local_gb": 2000}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PSYCOPG_IMPL", "python")
        with Site(directory, rabbitmq.new_vhost(), url, **options) as made:
            yield made.start("h1", "h2")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.__name__)
def test_a_scenario_holds(site: Site, scenario: Scenario) -> None:
    scenario(site)
    for one in site.daemons.values():
        assert "Traceback" not in one.log.read_text()


def test_only_native_threads_make_many_of_them(site: Site) -> None:
    process = site.daemons["h1"].process
    assert process is not None
    native = len(list(Path(f"/proc/{process.pid}/task").iterdir()))
    assert (native <= 3) == (site.given["executor"] == "eventlet"), native


def test_what_was_accepted_before_a_kill_is_done_after_it(site: Site) -> None:
    site.daemons["h1"].kill()
    accepted = site.api.create(ADMIN, image="tiny", instance_type="m1.tiny", min_count=5, host="h1")
    site.daemons["h1"].start()
    for one in accepted:
        site.done(one, timeout_s=30)
        assert site.instance(one.instance_id).vm_state == Vm.ACTIVE


def test_a_daemon_that_is_told_to_stop_does_so_soon_and_in_order(site: Site) -> None:
    begun = time.monotonic()
    assert site.daemons["h2"].end(signal.SIGTERM) == 0
    assert time.monotonic() - begun < 10
    log = site.daemons["h2"].log.read_text()
    assert "nova-compute stops" in log
    assert "Traceback" not in log
    site.daemons["h2"].start()
    eventually(lambda: site.call("h2", "get_console_topic") == "console.h2", what="h2 serves again")
