"""Room on hosts is sold once, whoever asks, however many ask at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

import db.compute_nodes
import db.server_groups
from compute.errors import HostNotFoundError, NoValidHostError, ServerGroupNotFoundError
from compute.scheduler import Scheduler, group_facts
from compute.scheduling.request import Request
from db import models
from db.session import Database, Tx
from tests.functional import claims

HOSTS = ["h0", "h1", "h2", "h3", "h4"]
SMALL = Request(vcpus=1, memory_mb=512, local_gb=1)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = claims.new_database(f"sqlite:///{tmp_path / 'nova.sqlite'}")
    yield made
    made.dispose()


@pytest.fixture
def statements(database: Database) -> list[str]:
    """Every statement from here on, by its first word."""
    seen: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        seen.append(statement.split(maxsplit=1)[0])

    event.listen(database.engine, "before_cursor_execute", note)
    return seen


def url(database: Database) -> str:
    return database.url.render_as_string(hide_password=False)


def place(database: Database, request: Request = SMALL, scheduler: Scheduler | None = None) -> str:
    return database.run((scheduler or claims.a_scheduler()).place, request)


@pytest.mark.parametrize("hosts", [["h0"], HOSTS])
@pytest.mark.parametrize("ttl_s", [0.0, 30.0])
def test_a_hundred_creates_in_threads_on_room_for_ten_give_ten(
    database: Database, hosts: list[str], ttl_s: float
) -> None:
    claims.add_hosts(database, *hosts, vcpus=10 // len(hosts))
    claims.assert_ten_of_a_hundred(database, claims.race(url(database), 100, threads=20, ttl_s=ttl_s), hosts)


@pytest.mark.parametrize("ttl_s", [0.0, 30.0])
def test_a_hundred_creates_in_processes_on_room_for_ten_give_ten(database: Database, ttl_s: float) -> None:
    claims.add_hosts(database, *HOSTS, vcpus=2)
    claims.assert_ten_of_a_hundred(database, claims.race_processes(url(database), 100, ttl_s=ttl_s), HOSTS)


@pytest.mark.parametrize("ttl_s", [0.0, 30.0])
def test_members_of_an_anti_affinity_group_never_meet_however_they_race(database: Database, ttl_s: float) -> None:
    claims.add_hosts(database, *HOSTS)
    group = claims.add_group(database, "anti-affinity")
    outcomes = claims.race(url(database), 20, threads=20, ttl_s=ttl_s, group=group)
    assert outcomes == {**dict.fromkeys(HOSTS, 1), "NoValidHostError": 15}


def test_members_of_an_affinity_group_stay_together_however_they_race(database: Database) -> None:
    claims.add_hosts(database, *HOSTS)
    outcomes = claims.race(url(database), 20, threads=20, group=claims.add_group(database, "affinity"))
    assert list(outcomes.values()) == [20]


def test_placing_one_costs_a_read_and_a_claim(database: Database, statements: list[str]) -> None:
    claims.add_hosts(database, *HOSTS)
    statements.clear()
    place(database)
    assert statements == ["SELECT", "UPDATE"]


def test_placing_many_costs_one_read_and_a_claim_each(database: Database, statements: list[str]) -> None:
    claims.add_hosts(database, *HOSTS, vcpus=2)
    statements.clear()
    hosts = database.run(claims.a_scheduler().place_many, [SMALL] * 10)
    assert sorted(hosts) == sorted(HOSTS * 2)
    assert statements == ["SELECT", *["UPDATE"] * 10]


def test_placing_with_recent_hosts_costs_the_claim_alone(database: Database, statements: list[str]) -> None:
    claims.add_hosts(database, *HOSTS, vcpus=1)
    scheduler = claims.a_scheduler(candidates_ttl_s=30)
    seen = {place(database, scheduler=scheduler)}
    statements.clear()
    seen |= {place(database, scheduler=scheduler) for _ in range(4)}
    assert statements == ["UPDATE"] * 4
    assert seen == set(HOSTS)


def test_recent_hosts_are_read_again_after_their_time(database: Database, statements: list[str]) -> None:
    now = [0.0]
    claims.add_hosts(database, "h0")
    driver = claims.load_driver("filter", claims.Settings())
    scheduler = Scheduler(driver, service_down_time_s=60, candidates_ttl_s=5, clock=lambda: now[0])
    for at in (0.0, 4.9, 5.1):
        now[0] = at
        place(database, scheduler=scheduler)
    assert statements.count("SELECT") == 2


def test_a_host_that_filled_up_since_it_was_read_costs_one_more_try(database: Database) -> None:
    claims.add_hosts(database, *HOSTS, vcpus=1)
    scheduler = claims.a_scheduler(candidates_ttl_s=30)
    first = place(database, scheduler=scheduler)
    others = [place(database, SMALL, claims.a_scheduler()) for _ in range(3)]
    last = place(database, scheduler=scheduler)
    assert sorted([first, last, *others]) == HOSTS


def test_recent_hosts_alone_refuse_nobody(database: Database) -> None:
    claims.add_hosts(database, "h0", vcpus=1)
    scheduler = claims.a_scheduler(candidates_ttl_s=30)
    place(database, scheduler=scheduler)
    claims.add_hosts(database, "h1", vcpus=1)
    assert place(database, scheduler=scheduler) == "h1"
    claims.add_hosts(database, "h2")
    assert place(database, Request(vcpus=1, memory_mb=1, local_gb=0, force_host="h2"), scheduler) == "h2"


def test_lost_claims_read_the_hosts_once_more_and_then_move_on(
    database: Database, statements: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    claims.add_hosts(database, *HOSTS)
    statements.clear()
    tried: list[str] = []
    monkeypatch.setattr(db.compute_nodes, "claim", lambda _tx, host, **_sizes: tried.append(host))
    with pytest.raises(NoValidHostError, match="h3: left out"):
        place(database)
    assert sorted(tried[1:]) == HOSTS
    assert statements == ["SELECT", "SELECT"]


def test_a_batch_that_does_not_fit_leaves_no_claim(database: Database) -> None:
    claims.add_hosts(database, *HOSTS, vcpus=2)
    with pytest.raises(NoValidHostError, match="h0: not enough vCPUs"):
        database.run(claims.a_scheduler().place_many, [SMALL] * 11)
    assert claims.booked(database) == dict.fromkeys(HOSTS, (0, 0))


def test_the_refusal_says_why_for_every_host(database: Database) -> None:
    claims.add_hosts(database, "small", memory_mb=256)
    claims.add_hosts(database, "off", disabled=True, disabled_reason="maintenance")
    claims.add_hosts(database, "off2", disabled=True)
    claims.add_hosts(database, "stopped", heartbeat_at=None)
    with pytest.raises(NoValidHostError) as caught:
        place(database)
    assert str(caught.value) == (
        "no valid host for 1 vCPUs, 512 MiB memory, 1 GiB disk: small: not enough memory (free 256 MiB, needs 512 MiB);"
        " off: disabled (maintenance); off2: disabled; stopped: down (stopped, or never started)"
    )


def test_a_host_is_down_by_the_databases_clock_alone(database: Database) -> None:
    claims.add_hosts(database, "h0")
    _age(database, "-1 day", "-5 seconds")
    with pytest.raises(NoValidHostError, match=r"h0: down \(last report 8640[567] s ago\)"):
        place(database)
    _age(database, "-50 seconds")
    assert place(database) == "h0"


def _age(database: Database, *modifiers: str) -> None:
    then = sa.func.strftime("%Y-%m-%d %H:%M:%f000", "now", *modifiers, type_=sa.DateTime())
    database.run(lambda tx: tx.execute(sa.update(models.services).values(heartbeat_at=then)))


def test_a_forced_host_that_is_not_registered_is_not_found(database: Database) -> None:
    claims.add_hosts(database, "h0")
    with pytest.raises(HostNotFoundError, match="no compute host h9"):
        place(database, Request(vcpus=1, memory_mb=1, local_gb=0, force_host="h9"))


def test_a_batch_of_one_anti_affinity_group_takes_a_host_each(database: Database) -> None:
    claims.add_hosts(database, *HOSTS)
    group = claims.add_group(database, "anti-affinity")
    member = Request(vcpus=1, memory_mb=1, local_gb=0, server_group_id=group, group_policy="anti-affinity")
    assert sorted(database.run(claims.a_scheduler().place_many, [member] * 5)) == HOSTS


def test_group_facts_leave_out_the_member_that_is_to_move(database: Database) -> None:
    group = claims.add_group(database, "affinity")

    def facts(tx: Tx) -> list[tuple[str, frozenset[str]]]:
        moving = claims.add_instance(tx, "h0", group)
        return [group_facts(tx, group), group_facts(tx, group, without=moving)]

    assert database.run(facts) == [("affinity", frozenset({"h0"})), ("affinity", frozenset())]


def test_a_server_group_that_does_not_exist_is_not_found(database: Database) -> None:
    with pytest.raises(ServerGroupNotFoundError, match="no server group 7"):
        database.run(group_facts, 7)
