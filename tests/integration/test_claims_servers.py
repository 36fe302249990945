"""On the database servers too, room on hosts is sold once and anti-affinity holds."""

from collections.abc import Iterator

import pytest

from db.session import Database
from tests.functional import claims

HOSTS = ["h0", "h1", "h2", "h3", "h4"]

pytestmark = pytest.mark.real


@pytest.fixture(params=["postgresql_url", "mariadb_url"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    made = claims.new_database(url)
    yield made
    made.dispose()


@pytest.mark.parametrize("hosts", [["h0"], HOSTS])
@pytest.mark.parametrize("ttl_s", [0.0, 30.0])
def test_a_hundred_creates_in_threads_on_room_for_ten_give_ten(
    url: str, database: Database, hosts: list[str], ttl_s: float
) -> None:
    claims.add_hosts(database, *hosts, vcpus=10 // len(hosts))
    claims.assert_ten_of_a_hundred(database, claims.race(url, 100, threads=20, ttl_s=ttl_s), hosts)


def test_a_hundred_creates_in_processes_on_room_for_ten_give_ten(url: str, database: Database) -> None:
    claims.add_hosts(database, *HOSTS, vcpus=2)
    claims.assert_ten_of_a_hundred(database, claims.race_processes(url, 100), HOSTS)


@pytest.mark.parametrize("ttl_s", [0.0, 30.0])
def test_members_of_an_anti_affinity_group_never_meet_however_they_race(
    url: str, database: Database, ttl_s: float
) -> None:
    claims.add_hosts(database, *HOSTS)
    group = claims.add_group(database, "anti-affinity")
    outcomes = claims.race(url, 20, threads=20, ttl_s=ttl_s, group=group)
    assert outcomes == {**dict.fromkeys(HOSTS, 1), "NoValidHostError": 15}


def test_members_of_an_affinity_group_stay_together_however_they_race(url: str, database: Database) -> None:
    claims.add_hosts(database, *HOSTS)
    outcomes = claims.race(url, 20, threads=20, group=claims.add_group(database, "affinity"))
    assert list(outcomes.values()) == [20]


def test_batches_that_cross_do_not_stop_each_other(url: str, database: Database) -> None:
    claims.add_hosts(database, *HOSTS, vcpus=40)
    placed = claims.race_batches(url, batches=20, size=10)
    assert placed == 200
    assert sum(vcpus for vcpus, _instances in claims.booked(database).values()) == 200
