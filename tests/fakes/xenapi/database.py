"""The pool's database: records by reference, the generation of each change, and fields that mirror references."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tests.fakes.xenapi.errors import NULL, ApiError, handle_invalid
from tests.fakes.xenapi.model import Model
from tests.fakes.xenapi.values import struct, write

Record = dict[str, Any]

# The set on the right's class that lists the objects whose field points to it.
MIRRORS = {
    ("VBD", "VM"): ("VM", "VBDs"), ("VBD", "VDI"): ("VDI", "VBDs"), ("VIF", "VM"): ("VM", "VIFs"),
    ("VIF", "network"): ("network", "VIFs"), ("VDI", "SR"): ("SR", "VDIs"), ("PBD", "SR"): ("SR", "PBDs"),
    ("PBD", "host"): ("host", "PBDs"), ("PIF", "network"): ("network", "PIFs"), ("PIF", "host"): ("host", "PIFs"),
    ("console", "VM"): ("VM", "consoles"), ("VM", "resident_on"): ("host", "resident_VMs"),
    ("VM", "snapshot_of"): ("VM", "snapshots"), ("VDI", "snapshot_of"): ("VDI", "snapshots"),
    ("host_cpu", "host"): ("host", "host_CPUs"), ("VLAN", "tagged_PIF"): ("PIF", "VLAN_slave_of"),
}  # fmt: skip


def now() -> str:
    """This second, as xapi writes it."""
    return time.strftime("%Y%m%dT%H:%M:%SZ", time.gmtime())


class Database:
    """Tables of records. `changed` is notified at every change; hold it (it is a lock) to see a consistent state."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.changed = threading.Condition(threading.RLock())
        self.generation = 0
        self.touched: set[tuple[str, str]] = set()
        self._tables: dict[str, dict[str, Record]] = {name: {} for name in model.classes}
        self._stamps: dict[tuple[str, str], tuple[int, int]] = {}
        self._graves: dict[tuple[str, str], tuple[int, int]] = {}
        self._recent: dict[tuple[str, str], None] = {}  # in the order of their last change
        self._xml: dict[tuple[str, str], str] = {}

    def create(self, kind: str, values: Mapping[str, Any]) -> str:
        """Add a record, with defaults for what is not given; its reference."""
        fields = self.model.classes[kind].fields
        ref = f"OpaqueRef:{uuid.uuid4()}"
        record = {name: field.initial() for name, field in fields.items()} | dict(values)
        if not record.get("uuid"):
            record["uuid"] = str(uuid.uuid4())
        assert record.keys() <= fields.keys(), record.keys() - fields.keys()
        self._tables[kind][ref] = record
        for name in fields:
            self._mirror(kind, ref, name, record[name], add=True)
        self._stamp(kind, ref, created=True)
        return ref

    def destroy(self, kind: str, ref: str) -> None:
        """Remove a record."""
        record = self._tables[kind].pop(ref)
        for name, value in record.items():
            self._mirror(kind, ref, name, value, add=False)
        self._xml.pop((kind, ref), None)
        self._recent.pop((kind, ref), None)
        self.touched.discard((kind, ref))
        self.generation += 1
        created, _ = self._stamps.pop((kind, ref))
        self._graves[kind, ref] = (created, self.generation)
        self.changed.notify_all()

    def get(self, kind: str, ref: str) -> Record:
        """The record itself, to be read; HANDLE_INVALID when there is none."""
        found = self._tables[kind].get(ref)
        if found is None:
            raise handle_invalid(kind, ref)
        return found

    def has(self, kind: str, ref: str) -> bool:
        """Whether the reference is to a record of this class."""
        return ref in self._tables[kind]

    def update(self, kind: str, ref: str, **values: Any) -> None:
        """Change fields; a value that is there already is no change."""
        record = self.get(kind, ref)
        for name, value in values.items():
            assert name in record, (kind, name)
            if record[name] != value:
                self._mirror(kind, ref, name, record[name], add=False)
                record[name] = value
                self._mirror(kind, ref, name, value, add=True)
                self._stamp(kind, ref)

    def touch(self, kind: str, ref: str) -> None:
        """Count the record as changed."""
        self._stamp(kind, ref)

    def all(self, kind: str) -> dict[str, Record]:
        """All records of a class by reference, to be read."""
        return self._tables[kind]

    def find(self, kind: str, **values: Any) -> list[str]:
        """References of the records that have these values."""
        wanted = values.items()
        return [ref for ref, one in self._tables[kind].items() if all(one[name] == value for name, value in wanted)]

    def by_uuid(self, kind: str, wanted: str) -> str:
        """The reference of a uuid; UUID_INVALID when there is none."""
        found = self.find(kind, uuid=wanted)
        if not found:
            raise ApiError("UUID_INVALID", kind, wanted)
        return found[0]

    def xml(self, kind: str, ref: str) -> str:
        """The record as a <value>, kept until it changes."""
        kept = self._xml.get((kind, ref))
        if kept is None:
            record, fields = self.get(kind, ref), self.model.classes[kind].fields
            kept = struct({name: write(field.type, record[name]) for name, field in fields.items()})
            self._xml[kind, ref] = kept
        return kept

    def since(self, generation: int) -> Iterator[tuple[str, str, str, int]]:
        """What changed after a generation, oldest first: operation (add, mod, del), class, reference, generation."""
        for (kind, ref), (created, gone) in self._graves.items():
            if created <= generation < gone:
                yield "del", kind, ref, gone
        newest_first: Iterable[tuple[str, str]] = reversed(self._recent)
        found = []
        for key in newest_first:
            created, modified = self._stamps[key]
            if modified <= generation:
                break
            found.append(("add" if created > generation else "mod", *key, modified))
        yield from reversed(found)

    def _stamp(self, kind: str, ref: str, *, created: bool = False) -> None:
        self.generation += 1
        key = (kind, ref)
        self._stamps[key] = (self.generation if created else self._stamps[key][0], self.generation)
        self._xml.pop(key, None)
        self._recent.pop(key, None)
        self._recent[key] = None
        self.touched.add(key)
        self.changed.notify_all()

    def _mirror(self, kind: str, ref: str, name: str, value: Any, *, add: bool) -> None:
        there = MIRRORS.get((kind, name))
        if there is None or value == NULL or value not in self._tables[there[0]]:
            return
        listed = self._tables[there[0]][value][there[1]]
        if add:
            listed.append(ref)
        else:
            listed.remove(ref)
        self._stamp(there[0], value)
