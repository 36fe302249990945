"""What only real database servers can show: races, locks, lost connections, clocks, and the same answers on each."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from db import images, instance_types, migration, networks, quotas, security_groups, volumes
from db.errors import AddressPoolEmptyError, DatabaseUnreachableError, RowNotFoundError, VolumeInUseError
from db.models import fixed_ips, metadata
from db.session import Database, Tx, utcnow
from tests.integration.servers import MariaDB, PostgreSQL
from tests.unit.db.db_builders import MAC, a_group, a_network, a_volume, an_image, an_instance

REPOSITORY = Path(__file__).resolve().parents[2]
SERVERS = ["postgresql", "mariadb"]
RACERS = 32
KILL_ME = {
    "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({})"),
    "mysql": ("SELECT connection_id()", "KILL {}"),
}

pytestmark = pytest.mark.real


@pytest.fixture(params=SERVERS)
def empty(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database without tables."""
    database = Database(request.getfixturevalue(f"{request.param}_url"), pool_size=RACERS, retry_interval_s=0.1)
    yield database
    database.dispose()


@pytest.fixture
def database(empty: Database) -> Database:
    """A migrated database."""
    migration.sync(empty)
    return empty


def race(work: Callable[[int], Any], racers: int = RACERS) -> list[Any]:
    """What each racer's `work(number)` returned or raised, all let go at once."""
    start = threading.Barrier(racers)

    def run(number: int) -> Any:
        start.wait()
        try:
            return work(number)
        except Exception as exc:  # noqa: BLE001 - the test looks at it
            return exc

    with ThreadPoolExecutor(racers) as pool:
        return list(pool.map(run, range(racers)))


def some_instances(database: Database, count: int = RACERS) -> list[int]:
    return database.run(lambda tx: [an_instance(tx) for _ in range(count)])


@pytest.mark.parametrize("name", SERVERS)
def test_the_repositories_keep_their_promises_on(name: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(f"{name}_url")
    ours = ["--ignore=tests/unit/db/test_migration.py", "--ignore=tests/unit/db/test_session.py"]
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/db", *ours]
    done = subprocess.run(
        [*argv, "--sql-connection", url], cwd=REPOSITORY, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_migrated_schema_is_the_one_the_code_uses(database: Database) -> None:
    with database.read() as tx:
        assert compare_metadata(MigrationContext.configure(tx), metadata) == []


def test_a_database_goes_up_down_and_up_again(empty: Database) -> None:
    assert migration.version(empty) is None
    migration.sync(empty)
    migration.downgrade(empty, "base")
    assert set(sa.inspect(empty.engine).get_table_names()) == {"alembic_version"}
    migration.sync(empty)
    migration.check(empty)
    assert len(empty.query(instance_types.list_all)) == 5


def test_four_syncs_at_once_take_turns(empty: Database) -> None:
    assert race(lambda _: migration.sync(empty), 4) == [None] * 4
    migration.check(empty)


def test_a_database_that_does_not_exist_is_not_taken_for_an_empty_one(empty: Database) -> None:
    missing = Database(empty.url.set(database="nowhere").render_as_string(hide_password=False), max_retries=0)
    with pytest.raises((sa.exc.OperationalError, DatabaseUnreachableError), match="nowhere"):
        migration.version(missing)


def test_racing_claims_get_different_addresses_down_to_the_last(database: Database) -> None:
    network_id = database.run(a_network, cidr="10.0.0.0/26", top=61 - RACERS)
    ids = some_instances(database, RACERS + 1)
    given = race(lambda number: database.run(networks.claim, network_id, ids[number], MAC))
    assert len({claimed.address for claimed in given}) == RACERS
    with pytest.raises(AddressPoolEmptyError):
        database.run(networks.claim, network_id, ids[-1], MAC)


@pytest.mark.parametrize("empty", ["postgresql"], indirect=True)
def test_claims_of_one_statement_get_different_addresses_and_leave_the_rest_to_those_of_two(database: Database) -> None:
    network_id = database.run(a_network, cidr="10.0.0.0/26", top=61 - RACERS)
    ids = some_instances(database, RACERS + 1)
    given = race(lambda number: database.run_single(networks.claim_at_once, network_id, ids[number], MAC))
    assert len({claimed.address for claimed in given}) == RACERS
    assert given[0] == database.run(networks.claim, network_id, ids[0], "another mac")
    for nothing in ((network_id, ids[0]), (network_id, ids[-1]), (network_id + 1, ids[-1])):
        assert database.run_single(networks.claim_at_once, *nothing, MAC) is None


def test_a_claim_locks_one_address_and_no_network(database: Database) -> None:
    network_id, (one, two) = database.run(a_network, cidr="10.0.0.0/22"), some_instances(database, 2)
    unlocked = sa.select(fixed_ips.c.id).with_for_update(skip_locked=True)
    with database.transaction() as tx:
        assert networks.claim(tx, network_id, one, MAC).address == "10.0.0.2"
        with database.transaction() as other:
            assert networks.claim(other, network_id, two, MAC).address == "10.0.0.3"
        with database.transaction() as other:
            assert len(other.execute(unlocked).all()) == 1024 - 1


def test_a_wanted_address_goes_to_one_of_many(database: Database) -> None:
    network_id, ids = database.run(a_network), some_instances(database)
    results = race(lambda number: database.run(networks.claim_exact, network_id, ids[number], MAC, "10.0.0.5"))
    assert sum(isinstance(result, networks.ClaimedAddress) for result in results) == 1
    assert {str(result) for result in results if isinstance(result, Exception)} == {
        "address 10.0.0.5 of network private is held by another instance"
    }


def test_a_network_is_not_deleted_under_a_claim(database: Database) -> None:
    network_id, (one,) = database.run(a_network), some_instances(database, 1)
    with ThreadPoolExecutor(1) as pool, database.transaction() as tx:
        networks.claim(tx, network_id, one, MAC)
        deletion = pool.submit(database.run, networks.delete, network_id)
        time.sleep(0.3)
        assert not deletion.done()
        tx.commit()
        assert str(deletion.exception()) == f"network {network_id} is in use by 1 addresses of instances"


def test_a_volume_goes_to_one_of_many_and_the_others_are_told_to_whom(database: Database) -> None:
    volume_id, ids = database.run(a_volume), some_instances(database)
    results = race(lambda number: database.run(volumes.reserve_attachment, volume_id, ids[number], "/dev/vdb"))
    winner = database.query(volumes.attachment_of, volume_id)
    losers = [result for result in results if isinstance(result, VolumeInUseError)]
    assert (len(losers), {loser.instance_id for loser in losers}) == (RACERS - 1, {winner.instance_id})


def test_a_device_name_goes_to_one_of_many_volumes(database: Database) -> None:
    (instance_id,) = some_instances(database, 1)
    ids = database.run(lambda tx: [a_volume(tx) for _ in range(RACERS)])
    race(lambda number: database.run(volumes.reserve_attachment, ids[number], instance_id, "/dev/vdb"))
    assert len(database.query(volumes.attachments_of, [instance_id])) == 1
    assert sum(each.status == "available" for each in database.query(volumes.list_all)) == RACERS - 1


def test_racing_first_instances_share_one_default_group(database: Database) -> None:
    results = race(lambda _: database.run(security_groups.ensure_default, "ann", "lab", hold=True))
    assert len(set(results)) == 1
    assert len(database.query(security_groups.list_all)) == 1


def test_a_quota_counted_while_the_project_is_held_is_never_passed(database: Database) -> None:
    def boot(tx: Tx, _number: int) -> bool:
        security_groups.ensure_default(tx, "ann", "lab", hold=True)
        allowed = quotas.usage(tx, "lab").instances < 10
        return allowed and bool(an_instance(tx))

    assert sum(race(lambda number: database.run(boot, number))) == 10
    assert database.query(quotas.usage, "lab").instances == 10


def test_a_group_is_not_deleted_under_an_instance_that_joins(database: Database) -> None:
    group_id, (one,) = database.run(a_group), some_instances(database, 1)
    with ThreadPoolExecutor(1) as pool, database.transaction() as tx:
        security_groups.resolve(tx, "lab", ["web"])
        deletion = pool.submit(database.run, security_groups.delete, group_id)
        time.sleep(0.3)
        security_groups.associate(tx, one, [group_id])
        tx.commit()
        assert str(deletion.exception()) == f"security group {group_id} is in use by instances"


def test_a_deadlock_is_resolved_by_doing_the_loser_again(database: Database) -> None:
    ids = database.run(lambda tx: [an_image(tx, name=name) for name in ("a", "b")])
    both = threading.Barrier(2)

    def swap(tx: Tx, first: int, second: int) -> None:
        images.update(tx, first, status="saving")
        if not both.broken:
            both.wait(10)
        images.update(tx, second, status="saving")

    def once(number: int) -> None:
        database.run(swap, *(ids if number else reversed(ids)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_back_off", lambda *args: (both.abort(), Database._back_off(database, *args)))
        assert race(once, 2) == [None, None]


def test_work_is_done_once_although_its_connection_was_killed(database: Database) -> None:
    which, kill = KILL_ME[database.dialect]
    attempts = []

    def work(tx: Tx) -> None:
        a_volume(tx)
        attempts.append(tx.execute(sa.text(which)).scalar_one())
        if len(attempts) == 1:
            with database.engine.connect() as killer:
                killer.execute(sa.text(kill.format(attempts[0])))
        a_volume(tx)

    database.run(work)
    assert len(attempts) == 2
    assert len(database.query(volumes.list_all)) == 2


def test_a_look_up_survives_connections_that_died_in_the_pool(database: Database) -> None:
    which, kill = KILL_ME[database.dialect]
    with database.read() as tx:
        mine = tx.execute(sa.text(which)).scalar_one()
    with sa.create_engine(database.url, poolclass=sa.NullPool).connect() as killer:
        killer.execute(sa.text(kill.format(mine)))
    assert len(database.query(instance_types.list_all)) == 5


@pytest.mark.parametrize("name", SERVERS)
def test_work_waits_for_a_server_that_crashed_and_comes_back(name: str, request: pytest.FixtureRequest) -> None:
    server: PostgreSQL | MariaDB = request.getfixturevalue(name)
    database = Database(server.create_database(), retry_interval_s=0.5, max_retries=60)
    migration.sync(database)
    server.kill()
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(database.run, a_volume)
        time.sleep(0.5)
        server.start()
        assert work.result() == 1
    database.dispose()


def test_times_are_the_servers_in_utc_whatever_zone_the_session_is_in(database: Database) -> None:
    zone = {"postgresql": "SET TIME ZONE 'Asia/Tokyo'", "mysql": "SET time_zone = '+09:00'"}[database.dialect]
    with database.transaction() as tx:
        tx.execute(sa.text(zone))
        written = images.get(tx, an_image(tx)).created_at
        now = tx.execute(sa.select(utcnow())).scalar_one()
    assert written <= now
    assert abs((datetime.now(UTC).replace(tzinfo=None) - now).total_seconds()) < 60
    assert (now.tzinfo, written.microsecond % 1000 != 0 or now.microsecond % 1000 != 0) == (None, True)


def test_names_differ_by_case_and_hold_any_script(database: Database) -> None:
    database.run(an_image, name="Größe 大きさ 🐟")
    database.run(an_image, name="größe 大きさ 🐟")
    assert database.query(images.find, "Größe 大きさ 🐟").id == 1
    with pytest.raises(RowNotFoundError):
        database.query(images.find, "Grösse 大きさ 🐟")
