"""Many take one volume at a time, on each database server: exactly one has it."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from db import volumes
from db.errors import VolumeInUseError, VolumeStatusError
from db.session import Database
from tests.functional.claims import add_instance, new_database

THREADS = 16


@pytest.mark.real
@pytest.mark.parametrize("url", ["postgresql_url", "mariadb_url"])
def test_of_many_who_take_a_volume_one_has_it(url: str, request: pytest.FixtureRequest) -> None:
    address = request.getfixturevalue(url)
    database = new_database(address)
    volume_id = database.run(volumes.create, user_id="u", project_id="p", size=1, status="available")
    instances = [database.run(add_instance, "h1") for _ in range(THREADS)]
    assert race(address, volume_id, instances) == {"taken": 1, "refused": THREADS - 1}
    assert len(database.query(volumes.attachments_of, instances)) == 1
    database.dispose()


def race(url: str, volume_id: int, instances: list[int]) -> Counter[str]:
    """What each was answered, all let go at once."""
    database, start = Database(url, pool_size=THREADS), threading.Barrier(THREADS)

    def take(instance_id: int) -> str:
        start.wait(30)
        try:
            database.run(volumes.reserve_attachment, volume_id, instance_id, "/dev/vdb")
        except (VolumeInUseError, VolumeStatusError):
            return "refused"
        return "taken"

    with ThreadPoolExecutor(THREADS) as pool:
        answers = Counter(pool.map(take, instances))
    database.dispose()
    return answers
