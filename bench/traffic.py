"""Boot and terminate through the API in this process and a real daemon in another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa

from bench import ceiling
from bench.places import Place
from bench.process import cpu_s
from bench.rows import PEER_BOOT_CPU_MS, PEER_BOOTS_PER_S, PEER_TERMINATES_PER_S, Row
from compute.api import Accepted
from db.actions import OPEN
from db.models import instance_actions as journal
from tests.functional.harness import ADMIN, Daemon, Deployment

HOST = "bench"
POLL_S = 0.01
WARM_UP = 30
BOOT_COMMITS = {"sent": 1, "received": 3}
TERMINATE_COMMITS = {"sent": 1, "received": 2}
_OPEN = sa.select(sa.func.count()).select_from(journal).where(journal.c.state.in_(OPEN))
_NOT_DONE = sa.select(sa.func.count()).select_from(journal).where(journal.c.state.in_(["failed", "aborted"]))


@dataclass(frozen=True, slots=True)
class Speed:
    """Operations a second, and CPU milliseconds each over API and daemon."""

    per_s: float
    cpu_ms: float


def rows(place: Place, times: int, rounds: int) -> Iterator[Row]:
    """Boot and terminate beside their ceilings; each figure is the best of its rounds, which take turns."""
    booted: list[Speed] = []
    ended: list[Speed] = []
    boot_bare: list[Speed] = []
    end_bare: list[Speed] = []
    with _deployed(place.room(HOST)) as (deployment, pid):
        _round(deployment, pid, WARM_UP)
        for _ in range(rounds):
            boot, end = _round(deployment, pid, times)
            booted.append(boot)
            ended.append(end)
            boot_bare.append(_bare(place, times, BOOT_COMMITS))
            end_bare.append(_bare(place, times, TERMINATE_COMMITS))
    embedded = place.name == "embedded"
    yield from _pair(place, "boot, create to active", booted, boot_bare, 300 if embedded else 200, PEER_BOOTS_PER_S)
    yield from _pair(place, "terminate", ended, end_bare, None, PEER_TERMINATES_PER_S)


def _pair(
    place: Place, what: str, speeds: list[Speed], bare: list[Speed], at_least: float | None, peer: float
) -> Iterator[Row]:
    best = max(speed.per_s for speed in speeds)
    top = max(speed.per_s for speed in bare)
    yield Row(what=what, where=place.name, value=best, unit="/s", at_least=at_least, ceiling=top, peer=peer)
    boot = at_least is not None
    yield Row(
        what=f"{what}: of ceiling", where=place.name, value=best / top * 100, unit="%", at_least=60 if boot else None
    )
    cpu = min(speed.cpu_ms for speed in speeds)
    yield Row(
        what=f"{what}: CPU", where=place.name, value=cpu, unit="ms", at_most=4.0 if boot else None,
        peer=PEER_BOOT_CPU_MS if boot else None,
    )  # fmt: skip


def _bare(place: Place, times: int, commits: dict[str, int]) -> Speed:
    found = ceiling.measure(place.database_url, place.bus_url, times, **commits)
    return Speed(found["per_s"], found["cpu_ms"])


@contextmanager
def _deployed(place: Place) -> Iterator[tuple[Deployment, int]]:
    starting = Daemon(place.directory, HOST, **place.options)
    del starting.options["fake_state_path"]  # guests in memory: the fake's files are no part of the work
    with starting as daemon, Deployment(place.directory, **place.options) as deployment:
        assert daemon.process is not None
        yield deployment, daemon.process.pid


def _round(deployment: Deployment, pid: int, times: int) -> tuple[Speed, Speed]:
    accepted: list[Accepted] = []

    def boot() -> None:
        for _ in range(times):
            accepted.extend(deployment.api.create(ADMIN, image="tiny", instance_type="m1.tiny"))

    def end() -> None:
        for one in accepted:
            deployment.api.delete(ADMIN, one.instance_id)

    return _timed(deployment, pid, times, boot), _timed(deployment, pid, times, end)


def _timed(deployment: Deployment, pid: int, times: int, act: Callable[[], None]) -> Speed:
    begun, own, theirs = time.perf_counter(), time.process_time(), cpu_s(pid)
    act()
    while deployment.db.query(_count, _OPEN):
        time.sleep(POLL_S)
    took = time.perf_counter() - begun
    used = time.process_time() - own + cpu_s(pid) - theirs
    if wrong := deployment.db.query(_count, _NOT_DONE):
        raise RuntimeError(f"{wrong} operations did not succeed: the figures would not count")
    return Speed(times / took, used / times * 1000)


def _count(tx: sa.Connection, statement: sa.Select[tuple[int]]) -> int:
    return tx.execute(statement).scalar_one()
