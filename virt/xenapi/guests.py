"""Find guests in a pool, and list those of one host.

A guest that runs is on the host where xapi says that it runs; one that is off is on the host whose stamp it carries.
So a live migration changes hands in the moment in which xapi says so.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from virt.errors import GuestNotFoundError
from virt.power_state import Power
from virt.spec import GuestFact, GuestInfo, InstanceSpec
from virt.xenapi import stamps
from virt.xenapi.errors import GoneError, XapiError
from virt.xenapi.helper import HelperBase, Record
from virt.xenapi.session import NULL, Session
from virt.xenapi.stamps import Stage, Stamp

LOG = logging.getLogger(__name__)

_POWERS = {
    "Running": Power.RUNNING, "Paused": Power.PAUSED, "Suspended": Power.SUSPENDED, "Halted": Power.SHUTOFF,
}  # fmt: skip
_NOBODY = (NULL, "")


@dataclass(frozen=True, slots=True)
class Guest:
    """A VM of ours, as xapi described it a moment ago."""

    ref: str
    record: Record

    @property
    def power(self) -> Power:
        """Its power state then."""
        return power_of(self.record)


def power_of(record: Record) -> Power:
    """The power state that a VM's record tells."""
    return _POWERS.get(record["power_state"], Power.NOSTATE)


class Guests(HelperBase):
    """The VMs of one host of a pool. host: that host's reference; listing_s: how long events alone are believed."""

    def __init__(self, session: Session, stamp: Stamp, host: str, *, listing_s: float = 600.0) -> None:
        super().__init__(session)
        self.stamp, self.host = stamp, host
        self._listing_s, self._listed_at = listing_s, 0.0
        self._records: dict[str, Record] = {}
        self._token = ""
        self._alone = threading.Lock()

    def find(self, spec: InstanceSpec) -> Guest:
        """The guest, if it is on this host. Raises GuestNotFoundError."""
        return self._found(spec.name, spec)

    def named(self, name: str) -> Guest:
        """The guest of this installation that is called so here. Raises GuestNotFoundError."""
        return self._found(name, None)

    def staged(self, spec: InstanceSpec, stage: Stage) -> list[Guest]:
        """VMs of the guest at this stage, on whichever host."""
        label = stamps.unfinished(spec) if stage is Stage.UNFINISHED else stamps.kept(spec)
        return [guest for guest in self.labelled(label) if self._is_staged(guest.record, spec, stage)]

    def labelled(self, label: str) -> Iterator[Guest]:
        """Every VM of the pool with this label, whatever it is."""
        for ref in self.call("VM.get_by_name_label", label):
            try:
                yield Guest(ref, self.call("VM.get_record", ref))
            except GoneError:
                continue

    def again(self, guest: Guest) -> Guest:
        """The same guest as it is now. Raises GuestNotFoundError."""
        return Guest(guest.ref, self.call("VM.get_record", guest.ref))

    def is_ours(self, record: Record, spec: InstanceSpec | None = None) -> bool:
        """True if a VM is one that this installation made (for this guest), and no copy of one."""
        config = record["other_config"]
        return self.stamp.is_on(config, spec) and config.get(stamps.VM) == record["uuid"]

    def is_here(self, record: Record) -> bool:
        """True if a VM is this host's."""
        if record["resident_on"] not in _NOBODY:
            return bool(record["resident_on"] == self.host)
        return bool(record["other_config"].get(stamps.HOST) == self.stamp.host)

    def info(self, name: str) -> GuestInfo:
        """Facts about one guest. xapi does not count CPU time: it is 0. Raises GuestNotFoundError."""
        record = self.named(name).record
        most = int(record["memory_static_max"]) // 1024
        now = int(record["memory_dynamic_max"]) // 1024
        return GuestInfo(
            power=power_of(record), max_mem_kb=most, mem_kb=min(now or most, most), num_cpu=int(record["VCPUs_max"]),
            cpu_time_ns=0,
        )  # fmt: skip

    def list_guests(self) -> list[GuestFact]:
        """Every VM of this host, ours and others', in one call; in two when they are listed anew."""
        return [self._fact(record) for record in self.records() if self._is_guest(record)]

    def vcpus_used(self) -> int:
        """CPUs of the VMs that are on here, as the latest look at all of them tells."""
        return sum(int(r["VCPUs_max"]) for r in self.records() if self._is_guest(r) and power_of(r).is_on)

    def records(self) -> list[Record]:
        """The VMs of the whole pool, brought up to date by what has happened to them since the last time."""
        return list(self.now()[1].values())

    def now(self) -> tuple[str, dict[str, Record]]:
        """The same by reference, with the token that later events are asked for with."""
        with self._alone:
            if self._token and time.monotonic() - self._listed_at > self._listing_s:
                self._list_anew()
            try:
                self._follow()
            except XapiError as exc:
                if exc.code != "EVENTS_LOST":
                    raise
                self._token = ""
                self._follow()
            return self._token, dict(self._records)

    def _list_anew(self) -> None:
        self._records, self._listed_at = self.call("VM.get_all_records"), time.monotonic()

    def _follow(self) -> None:
        """Take in what has happened; without a token that is every VM that there is."""
        if not self._token:
            self._records, self._listed_at = {}, time.monotonic()
        batch = self._events(self._token, 0.0)
        for event in batch["events"]:
            if event["operation"] == "del" or "snapshot" not in event:
                self._records.pop(event["ref"], None)
            else:
                self._records[event["ref"]] = event["snapshot"]
        self._token = batch["token"]
        count = batch.get("valid_ref_counts", {}).get("vm")
        if count is not None and int(count) != len(self._records):
            LOG.info("events tell of %d VMs, the pool has %s: all are listed anew", len(self._records), count)
            self._list_anew()

    def _events(self, token: str, timeout_s: float) -> Record:
        batch: Record = self.call("event.from", ["vm"], token, timeout_s)
        return batch

    def _found(self, name: str, spec: InstanceSpec | None) -> Guest:
        for guest in self.labelled(name):
            if self._matches(guest.record, name, spec):
                return guest
        for record in self.records():  # its label is an operator's to change
            if record["name_label"] != name and self._matches(record, name, spec):
                return Guest(self.call("VM.get_by_uuid", record["uuid"]), record)
        raise GuestNotFoundError(f"guest {name}: there is none on this host of the pool")

    def _matches(self, record: Record, name: str, spec: InstanceSpec | None) -> bool:
        is_it = self.is_ours(record, spec) and record["other_config"].get(stamps.NAME) == name
        return is_it and self._is_guest(record)

    def _is_staged(self, record: Record, spec: InstanceSpec, stage: Stage) -> bool:
        """An unfinished clone may have been lost before it was stamped; its label has the guest's uuid all the same."""
        if record["is_a_snapshot"]:
            return False
        is_bare_clone = stage is Stage.UNFINISHED and stamps.CLUSTER not in record["other_config"]
        is_at_stage = record["other_config"].get(stamps.STAGE) == stage.value
        return is_bare_clone or (is_at_stage and self.is_ours(record, spec))

    def _is_guest(self, record: Record) -> bool:
        """A VM of this host that is neither a template, a snapshot, the control domain, nor ours at another stage."""
        if record["is_a_template"] or record["is_a_snapshot"] or record["is_control_domain"]:
            return False
        if self.is_ours(record):
            return stamps.STAGE not in record["other_config"] and self.is_here(record)
        return bool(self.host in {record["resident_on"], record["affinity"]})

    def _fact(self, record: Record) -> GuestFact:
        config = record["other_config"]
        if not self.is_ours(record):
            return GuestFact(name=record["name_label"], power=power_of(record), ours=False)
        return GuestFact(name=config.get(stamps.NAME, ""), power=power_of(record), uuid=config.get(stamps.UUID))
