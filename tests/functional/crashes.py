"""Crashes in one process, and what must be true after every one of them.

A thread that reaches a crash point stands still there for the rest of the test, as if its process had gone: it unwinds
nothing. Its daemon is then ended without waiting, and a new one started on the same hypervisor.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from compute import verify
from compute.states import Vm
from db import actions, compute_nodes, resizes
from db.instances import list_all
from tests.functional.harness import Deployment, eventually
from virt.fake.faults import POINTS
from virt.spec import GuestFact

SETTLE = "settle"  # the operation is over, its end not yet written


class Crash:
    """One crash of one host's daemon."""

    def __init__(self, cloud: Deployment, host: str) -> None:
        self._cloud, self._host = cloud, host
        self.reached, self._over = threading.Event(), threading.Event()

    def at(self, point: str) -> None:
        """Stand still at a point of the fake driver, or at SETTLE."""
        if point == SETTLE:
            settling = self._cloud.services[self._host].host.tasks.settling
            settling.end = self._instead(settling.end)
        else:
            self._cloud.drivers[self._host].faults.at(point, self._stand_still)

    def _instead(self, end: Callable[[Any], None]) -> Callable[[Any], None]:
        def stop(job: Any) -> None:
            self._stand_still()
            end(job)

        return stop

    def _stand_still(self) -> None:
        self.reached.set()
        self._over.wait(120)

    def restart(self) -> None:
        """End the daemon where it stands, and start a new one."""
        eventually(self.reached.is_set, 20, "the crash point")
        self._cloud.stop(self._host)
        del self._cloud.drivers[self._host]
        self._cloud.start(self._host)

    def release(self) -> None:
        """Let the thread end; what it does now is a straggler's."""
        self._over.set()


def points_of(method: str) -> tuple[str, ...]:
    """The crash points of a driver's method."""
    return POINTS.get(method, (method, f"{method}.done"))


def nothing_open(cloud: Deployment) -> bool:
    """No order is requested or running."""
    return not [one for state in actions.OPEN for one in cloud.db.query(actions.list_recent, state=state)]


def settled(cloud: Deployment, timeout_s: float = 20) -> None:
    """Wait until no order is open, then hold the records against the hypervisors."""
    eventually(lambda: nothing_open(cloud), timeout_s, "no open order")
    try:
        eventually(lambda: not unsound(cloud), 3)
    except AssertionError:
        assert unsound(cloud) == []


def unsound(cloud: Deployment) -> list[str]:
    """Everything that is stuck, leaked or double."""
    rows = {row.uuid: row for row in cloud.db.query(list_all)}
    found = [f"instance {row.id} holds {row.task_state}" for row in rows.values() if row.task_state is not None]
    guests: dict[str, str] = {}
    for host in cloud.services:
        driver = cloud.drivers[host]
        for fact in driver.list_guests():
            found += _about_guest(fact, host, rows, guests)
        for name, held in driver.hypervisor.leftovers().items():
            row = next((row for row in rows.values() if f"instance-{row.id:08x}" == name), None)
            if held.kept is None or row is None or row.vm_state != Vm.RESIZED:
                found.append(f"{host} holds remains of {name}")
    found += [f"instance {row.id} is {row.vm_state} without a guest" for uuid, row in rows.items()
              if row.vm_state not in {Vm.ERROR, Vm.BUILDING} and uuid not in guests]  # fmt: skip
    audited = [one for one in verify.run(cloud.db, service_down_time_s=60) if one.check not in {"claims", "services"}]
    return [*found, *(f"{one.subject} {one.message}" for one in audited), *_wrong_claims(cloud)]


def _wrong_claims(cloud: Deployment) -> list[str]:
    """Hosts whose claims are not the sum of what their instances and open moves need."""
    found = []
    for host in cloud.services:
        node = cloud.db.query(compute_nodes.find, host)
        assert node is not None
        here = [*cloud.db.query(list_all, host=host), *cloud.db.query(resizes.held_on, host)]
        needed = sum(one.memory_mb for one in here), sum(one.vcpus for one in here)
        if needed != (node.memory_mb_used, node.vcpus_used):
            found.append(f"{host} claims {node.memory_mb_used} MiB, {node.vcpus_used} vcpus and needs {needed}")
    return found


def _about_guest(fact: GuestFact, host: str, rows: dict[str, Any], guests: dict[str, str]) -> list[str]:
    uuid = fact.uuid or ""
    row = rows.get(uuid)
    found = [f"guest {fact.name} is on {guests[uuid]} and {host}"] if uuid in guests else []
    guests[uuid] = host
    if row is None or row.host != host:
        found.append(f"guest {fact.name} of {row and row.host} is on {host}")
    return found
