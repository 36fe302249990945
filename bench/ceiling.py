"""The ceiling of boot and terminate: a bare cast and as many bare commits, between two processes as theirs are.

The sender, this process, does its share of the commits and casts; the receiver, a process of its own, does the rest. A
bare commit is a transaction of one UPDATE of one row by its primary key.

python -m bench.ceiling DATABASE_URL BUS_URL COMMITS     the receiver, until standard input ends
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from bench.process import cpu_s
from compute import conf as conf_module
from compute.context import RequestContext, get_admin_context
from compute.messaging.dispatch import exposed
from compute.messaging.transport import Bus
from db.session import Database

TOPIC, HOST, VERSION = "ceiling", "receiver", "1.0"
WIDTH = 10  # as many threads as a daemon has for builds; on SQLite one, since writers only get in each other's way
ROWS = 256
WARM_UP = 50
POLL_S = 0.005
_TABLE = sa.Table(
    "bench_ceiling", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("n", sa.Integer)
)
_BUMP = sa.update(_TABLE).where(_TABLE.c.id == sa.bindparam("key")).values(n=_TABLE.c.n + 1)


class Receiver:
    """The served endpoint: commits for every cast, and says how many it has done."""

    def __init__(self, database: Database, commits: int) -> None:
        self._database, self._commits = database, commits
        self._lock = threading.Lock()
        self._done = 0

    @exposed
    def work(self, context: RequestContext, number: int) -> None:  # noqa: ARG002 - every verb has one
        """Do this side's commits."""
        for at in range(self._commits):
            commit(self._database, (number + at) % ROWS)
        with self._lock:
            self._done += 1

    @exposed
    def done(self, context: RequestContext) -> int:  # noqa: ARG002
        """How many casts have been worked off."""
        return self._done


def commit(database: Database, key: int) -> None:
    """A bare commit: one statement in a transaction of its own, never done together with another thread's."""
    with database.transaction() as tx:
        tx.execute(_BUMP, {"key": key})


def prepare(database: Database) -> None:
    """Make the table anew."""
    with database.transaction() as tx:
        _TABLE.drop(tx, checkfirst=True)
        _TABLE.create(tx)
        tx.execute(sa.insert(_TABLE), [{"id": key, "n": 0} for key in range(ROWS)])


def measure(database_url: str, bus_url: str, times: int, *, sent: int, received: int) -> dict[str, float]:
    """Rate per second, and CPU milliseconds each, of `sent` commits here, a cast, and `received` commits there."""
    with _closing(database_url, bus_url) as (database, bus), _receiver(database_url, bus_url, received) as pid:
        prepare(database)
        client = bus.client(TOPIC, VERSION).prepare(server=HOST)
        _round(client, database, WARM_UP, sent, WARM_UP)
        begun, own, theirs = time.perf_counter(), time.process_time(), cpu_s(pid)
        _round(client, database, times, sent, WARM_UP + times)
        took = time.perf_counter() - begun
        used = time.process_time() - own + cpu_s(pid) - theirs
    return {"per_s": times / took, "cpu_ms": used / times * 1000}


def _round(client: Any, database: Database, times: int, commits: int, until: int) -> None:
    for number in range(times):
        for at in range(commits):
            commit(database, (number + at) % ROWS)
        client.cast(get_admin_context(), "work", number=number)
    while client.call(get_admin_context(), "done") < until:
        time.sleep(POLL_S)


@contextmanager
def _closing(database_url: str, bus_url: str) -> Iterator[tuple[Database, Bus]]:
    database = Database(database_url)
    conf = conf_module.load([])
    conf.set_override("transport_url", bus_url)
    conf.set_override("rpc_thread_pool_size", 1 if database.dialect == "sqlite" else WIDTH)
    bus = Bus(conf)
    try:
        yield database, bus
    finally:
        bus.close()
        database.dispose()


@contextmanager
def _receiver(database_url: str, bus_url: str, commits: int) -> Iterator[int]:
    command = [sys.executable, "-m", "bench.ceiling", database_url, bus_url, str(commits)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process.pid
        finally:
            process.stdin.close()
            process.wait(30)


def _receive(database_url: str, bus_url: str, commits: int) -> None:
    with _closing(database_url, bus_url) as (database, bus):
        server = bus.server(TOPIC, HOST, Receiver(database, commits), VERSION)
        server.start()
        print("ready", flush=True)
        sys.stdin.read()
        server.stop()
        server.wait()


if __name__ == "__main__":
    _receive(sys.argv[1], sys.argv[2], int(sys.argv[3]))
