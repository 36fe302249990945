"""Power-state sync: records follow what the hypervisor says, and only what it says.

One listing and one query for the whole host; a write only where something changed. A listing that fails says nothing
about any guest. A listing that changes many records at once is believed only when further ones agree, because an
operator's mistake or a hypervisor's hiccup looks the same as many guests that stopped.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from compute import faults
from compute.errors import ComputeError
from compute.host import Host
from compute.states import Vm, follow
from db import instances
from db.instances import PowerRecord
from db.session import Tx
from virt.errors import VirtError
from virt.power_state import Power
from virt.spec import GuestFact

LOG = logging.getLogger(__name__)
GONE = frozenset({Vm.ACTIVE, Vm.PAUSED, Vm.SUSPENDED, Vm.RESCUED})  # states in which there must be a guest


@dataclass(frozen=True, slots=True)
class Change:
    """One record that differs from the hypervisor's fact."""

    record: PowerRecord
    power: Power
    vm_state: Vm

    @property
    def lost(self) -> bool:
        """True if the guest should be there and is not."""
        return self.vm_state is Vm.ERROR and self.record.vm_state != Vm.ERROR


@dataclass(frozen=True, slots=True)
class Orphan:
    """A guest without a record on this host. kind: deleted, elsewhere or unknown."""

    name: str
    uuid: str | None
    kind: str


class PowerSync:
    """The sync of one host, with what it remembers from one round to the next."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._held: frozenset[tuple[int, Power]] = frozenset()
        self._held_rounds = 0
        self._orphans: frozenset[str] = frozenset()
        self._alone = threading.Lock()
        self._total = self._stopped = 0
        self.reachable = True

    def run(self, *, counts: bool = True) -> list[Change]:
        """One round; what it wrote. Raises nothing the hypervisor raises: an unreachable one changes no record.

        counts: it is one of the looks, an interval apart, that have to agree on a mass change.
        """
        with self._alone, self._host.tasks.meter.sync():
            return self._run(counts=counts)

    def look(self, uuids: Collection[str]) -> set[str]:
        """Look at these guests only, because something happened to them, and write what is so.

        Returns those that cannot be judged now: a task holds them, or the hypervisor does not answer. Stops in number
        are left to `run`, which knows a mass change when it sees one.
        """
        seen_at = self._host.db.query(instances.clock)
        here = self._host.settings.host
        rows = [row for row in self._host.db.query(instances.by_uuids, uuids).values() if row.host == here]
        records = [power_record(row) for row in rows if not row.deleted]
        busy = {record.uuid for record in records if record.task_state is not None}
        if len(busy) == len(records):
            return busy
        try:
            facts = self._host.driver.list_guests()
        except VirtError as exc:
            LOG.debug("the hypervisor does not answer: %s", exc)
            return {record.uuid for record in records}
        changes = differences(records, facts)
        stopped = sum(1 for change in changes if not change.power.is_on)
        if stopped and self._stopped + stopped > self._limit(self._total):
            LOG.warning("%d more guests stopped by themselves: left to the next sync", stopped)
            return busy
        self._stopped += stopped
        self._write(changes, seen_at)
        return busy

    def _run(self, *, counts: bool) -> list[Change]:
        try:
            seen_at = self._host.db.query(instances.clock)
            records, facts = self._look()
        except VirtError as exc:
            if self.reachable:
                LOG.error("the hypervisor does not answer, no power state is written: %s", exc)
            self.reachable = False
            return []
        if not self.reachable:
            LOG.info("the hypervisor answers again")
            self.reachable = True
        changes = differences(records, facts)
        self._report_orphans(records, facts)
        self._total, self._stopped = len(records), 0
        if self._is_held(changes, len(records), counts=counts):
            return []
        self._write(changes, seen_at)
        return changes

    def _look(self) -> tuple[list[PowerRecord], Sequence[GuestFact]]:
        records = self._host.db.query(instances.power_records, self._host.settings.host)
        return records, self._host.driver.list_guests()

    def _limit(self, total: int) -> int:
        """How many of so many guests may stop at once and be believed at once."""
        flags = self._host.settings
        return max(flags.sync_mass_change_min, total * flags.sync_mass_change_percent // 100)

    def _is_held(self, changes: Sequence[Change], total: int, *, counts: bool) -> bool:
        """True while a mass change still needs further rounds that see the same."""
        flags = self._host.settings
        bad = [change for change in changes if not change.power.is_on]
        if not counts:
            return len(bad) > self._limit(total)
        if len(bad) <= self._limit(total):
            self._held, self._held_rounds = frozenset(), 0
            return False
        seen = frozenset((change.record.id, change.power) for change in bad)
        self._held_rounds = self._held_rounds + 1 if seen == self._held else 0
        self._held = seen
        if self._held_rounds >= flags.sync_mass_change_confirmations:
            LOG.warning("%d of %d guests are off by every look: recording it", len(bad), total)
            self._held, self._held_rounds = frozenset(), 0
            return False
        LOG.error(
            "%d of %d guests seem to be off at once: nothing is recorded until %d more looks agree",
            len(bad),
            total,
            flags.sync_mass_change_confirmations - self._held_rounds,
        )
        return True

    def _write(self, changes: Sequence[Change], seen_at: datetime) -> None:
        if not changes:
            return
        groups: dict[tuple[str, int, Power, Vm], list[Change]] = defaultdict(list)
        for change in changes:
            record = change.record
            groups[record.vm_state, record.power_state, change.power, change.vm_state].append(change)
            LOG.info("instance %d: the hypervisor says %s", record.id, change.power.label)
        self._host.db.run(_write_groups, list(groups.values()), self._host.settings.host, seen_at)

    def _report_orphans(self, records: Sequence[PowerRecord], facts: Sequence[GuestFact]) -> None:
        found = self.orphans(records, facts)
        names = frozenset(orphan.name for orphan in found)
        if names != self._orphans:
            for orphan in found:
                LOG.warning("guest %s (%s) has no record here: %s; left alone", orphan.name, orphan.uuid, orphan.kind)
        self._orphans = names

    def orphans(self, records: Sequence[PowerRecord], facts: Sequence[GuestFact]) -> list[Orphan]:
        """Guests of this service that no record of this host explains; foreign guests are nobody's business."""
        known = {record.uuid for record in records}
        strays = {fact.uuid: fact for fact in facts if fact.ours and fact.uuid and fact.uuid not in known}
        if not strays:
            return []
        rows = self._host.db.query(instances.by_uuids, list(strays))
        kinds = {uuid: _kind(rows.get(uuid), self._host.settings.host) for uuid in strays}
        return [Orphan(fact.name, uuid, kinds[uuid]) for uuid, fact in strays.items() if kinds[uuid] != "expected"]

    def audit(self) -> list[Orphan]:
        """The orphans of this moment, for `nova-manage verify`."""
        return self.orphans(*self._look())


def _kind(row: instances.Instance | None, host: str) -> str:
    if row is None:
        return "unknown"
    if row.deleted:
        return "deleted"
    return "expected" if row.task_state is not None or row.host == host else "elsewhere"


def power_record(row: instances.Instance) -> PowerRecord:
    """What the sync needs of a row."""
    return PowerRecord(row.id, row.uuid, row.vm_state, row.task_state, row.power_state)


def differences(records: Sequence[PowerRecord], facts: Sequence[GuestFact]) -> list[Change]:
    """The idle records that do not say what the facts say."""
    power_of: Mapping[str, Power] = {fact.uuid: fact.power for fact in facts if fact.ours and fact.uuid}
    changes = []
    for record in records:
        if record.task_state is not None:
            continue
        power, vm_state = _truth(record, power_of.get(record.uuid))
        if power != record.power_state or vm_state != record.vm_state:
            changes.append(Change(record, power, vm_state))
    return changes


def _truth(record: PowerRecord, power: Power | None) -> tuple[Power, Vm]:
    """What a record should say, given the fact; None: the hypervisor does not know the guest."""
    vm_state = Vm(record.vm_state)
    if power is not None:
        return power, follow(vm_state, power)
    return Power.NOSTATE, Vm.ERROR if vm_state in GONE else vm_state


def _write_groups(tx: Tx, groups: Sequence[Sequence[Change]], host: str, seen_at: datetime) -> None:
    for group in groups:
        first = group[0]
        also = {}
        if first.lost:
            gone = ComputeError("the guest is gone from its hypervisor, and nothing here removed it")
            also = {"fault": faults.fault(gone, "power-sync")}
        seen = [change.record for change in group]
        instances.write_power(tx, seen, host, seen_at, int(first.power), first.vm_state.value, **also)
