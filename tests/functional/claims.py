"""Hosts in a database, and many schedulers that race for their room: the ground of the claim tests."""

import multiprocessing
import threading
import uuid
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import sqlalchemy as sa

import db.compute_nodes
import db.instances
import db.server_groups
from compute.errors import NoValidHostError
from compute.scheduler import Scheduler, group_facts
from compute.scheduling.drivers import Settings, load_driver
from compute.scheduling.request import Request
from db import models
from db.session import Database, Tx, utcnow

PROCESSES = 4


def new_database(url: str) -> Database:
    """A database with every table, and one flavor for the instances' rows to refer to."""
    database = Database(url)
    models.metadata.create_all(database.engine)
    flavor = {"id": 1, "name": "m1.test", "flavorid": "1", "memory_mb": 512, "vcpus": 1, "local_gb": 1}
    database.run(lambda tx: tx.execute(sa.insert(models.instance_types), flavor))
    return database


def add_hosts(database: Database, *hosts: str, **facts: Any) -> None:
    """Register hosts that reported just now; `facts` are columns of services and compute_nodes."""
    service = {name: facts.pop(name) for name in list(facts) if name in models.services.c}
    node = {"vcpus": 64, "memory_mb": 65536, "local_gb": 1000, **facts}

    def add(tx: Tx) -> None:
        for host in hosts:
            values = {"binary": "nova-compute", "topic": "compute", "availability_zone": "nova", **service}
            row = sa.insert(models.services).values(host=host, **{"heartbeat_at": utcnow(), **values})
            key = tx.execute(row).inserted_primary_key
            tx.execute(sa.insert(models.compute_nodes).values(service_id=key[0], host=host, **node))

    database.run(add)


def add_group(database: Database, policy: str) -> int:
    """A server group's id."""
    return database.run(db.server_groups.create, name="group", project_id="p", policy=policy)


def a_scheduler(driver: str = "filter", candidates_ttl_s: float = 0.0) -> Scheduler:
    """A scheduler with default settings."""
    return Scheduler(load_driver(driver, Settings()), service_down_time_s=60, candidates_ttl_s=candidates_ttl_s)


def create(tx: Tx, scheduler: Scheduler, group: int | None = None) -> str:
    """What an API call does: learn about the group, place, and insert the row with its host, in one transaction."""
    policy, members = (None, frozenset[str]()) if group is None else group_facts(tx, group)
    request = Request(
        vcpus=1, memory_mb=512, local_gb=1, server_group_id=group, group_policy=policy, group_hosts=members
    )
    host = scheduler.place(tx, request)
    add_instance(tx, host, group)
    return host


def add_instance(tx: Tx, host: str, group: int | None = None) -> int:
    """An instance's row."""
    names = dict.fromkeys(("display_name", "hostname", "user_id", "project_id", "reservation_id"), "x")
    sizes = {"instance_type_id": 1, "memory_mb": 512, "vcpus": 1, "local_gb": 1}
    own = {"uuid": str(uuid.uuid4()), "vm_state": "building", "host": host, "server_group_id": group}
    return db.instances.create(tx, {**names, **sizes, **own})


def try_create(database: Database, scheduler: Scheduler, group: int | None = None) -> str:
    """The host, or the name of the error that an API call answers with."""
    try:
        return database.run(create, scheduler, group)
    except NoValidHostError:
        return "NoValidHostError"


def race(url: str, creates: int, *, threads: int, ttl_s: float = 0.0, group: int | None = None) -> Counter[str]:
    """Outcomes of that many creates from one process' threads, all let go at once."""
    database, scheduler = Database(url, pool_size=threads), a_scheduler(candidates_ttl_s=ttl_s)
    start = threading.Barrier(threads)

    def work(share: int) -> list[str]:
        start.wait(30)
        return [try_create(database, scheduler, group) for _ in range(share)]

    with ThreadPoolExecutor(threads) as pool:
        outcomes = [outcome for part in pool.map(work, [creates // threads] * threads) for outcome in part]
    database.dispose()
    return Counter(outcomes)


def race_processes(url: str, creates: int, *, ttl_s: float = 0.0, group: int | None = None) -> Counter[str]:
    """The same from several processes of five threads each."""
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        share = creates // PROCESSES
        parts = [pool.submit(race, url, share, threads=5, ttl_s=ttl_s, group=group) for _ in range(PROCESSES)]
        return sum((part.result(timeout=120) for part in parts), Counter())


def race_batches(url: str, *, batches: int, size: int) -> int:
    """How many instances that many batches placed, all let go at once and none of them repeated."""
    database, scheduler = Database(url, pool_size=batches), a_scheduler()
    start = threading.Barrier(batches)

    def work(_batch: int) -> int:
        start.wait(30)
        with database.transaction() as tx:
            return len(scheduler.place_many(tx, [Request(vcpus=1, memory_mb=512, local_gb=1)] * size))

    with ThreadPoolExecutor(batches) as pool:
        placed = sum(pool.map(work, range(batches)))
    database.dispose()
    return placed


def booked(database: Database) -> dict[str, tuple[int, int]]:
    """What each host's row says is claimed in vCPUs, and how many instances say they are there."""
    nodes = database.query(db.compute_nodes.candidates)
    instances = Counter(row.host for row in database.query(db.instances.list_all))
    return {found.node.host: (found.node.vcpus_used, instances[found.node.host]) for found in nodes}


def assert_ten_of_a_hundred(database: Database, outcomes: Counter[str], hosts: Sequence[str]) -> None:
    """Room for ten was sold ten times: by the answers, by the hosts' rows and by the instances'."""
    assert outcomes.total() == 100
    assert outcomes["NoValidHostError"] == 90
    room = 10 // len(hosts)
    assert booked(database) == dict.fromkeys(hosts, (room, room))
