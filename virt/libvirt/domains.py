"""What the driver asks of libvirt about guests: each method is one call with a deadline, on the guest's own lane.

Guests are found by uuid and must carry our stamp; a guest of another maker is as good as absent. A guest whose QEMU
does not answer can still be looked at and stopped: those calls have lanes of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from virt.errors import GuestExistsError, GuestNotFoundError
from virt.libvirt import host as lv
from virt.libvirt.xml.metadata import NAMESPACE, Stamp
from virt.power_state import Power
from virt.spec import GuestFact, GuestInfo, InstanceSpec

Result = TypeVar("Result")

_SLOW_S = 120.0
_MEMORY_S, _SLOWEST_MB_S = 600.0, 50  # a guest's memory is written to disk, or read from it, at this pace at least
_SETTLE_S = 5.0
_PMSUSPENDED = 7


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a listing. state: libvirt's code."""

    name: str
    uuid: str
    state: int


class Domains:
    """The guests of one libvirt that carry the stamp of `cluster`."""

    def __init__(self, host: lv.Host, cluster: str) -> None:
        self._host, self._cluster = host, cluster
        self._ours: dict[str, bool] = {}  # a guest's stamp never changes, so it is read once

    def list_guests(self) -> list[GuestFact]:
        """Every guest. Two calls, besides one for each guest that was not there last time."""
        rows, saved, ours = self._host.listing("(list)", self._read_all)
        self._ours = ours
        return [
            GuestFact(
                name=row.name,
                power=power_of(row.state, saved=row.uuid in saved),
                uuid=row.uuid if ours[row.uuid] else None,
                ours=ours[row.uuid],
            )
            for row in rows
        ]

    def get_info(self, name: str) -> GuestInfo:
        """Facts about one guest of ours. Raises GuestNotFoundError, also for somebody else's of this name."""

        def work(connection: lv.Connection) -> GuestInfo:
            domain = connection.lookupByName(name)
            if not self.is_ours(domain):
                raise GuestNotFoundError(f"guest {name}: the hypervisor knows only somebody else's of this name")
            state, max_mem_kb, mem_kb, num_cpu, cpu_time_ns = domain.info()
            return GuestInfo(
                power=power_of(state, saved=_is_saved(domain)), max_mem_kb=max_mem_kb, mem_kb=mem_kb,
                num_cpu=num_cpu, cpu_time_ns=cpu_time_ns,
            )  # fmt: skip

        return self._host.call(name, work)

    def power(self, spec: InstanceSpec) -> Power:
        """The guest's power state. Raises GuestNotFoundError."""

        def work(connection: lv.Connection) -> Power:
            domain = self._own(connection, spec)
            return power_of(domain.state()[0], saved=_is_saved(domain))

        return self._host.call(f"{spec.name} (state)", work)

    def live_xml(self, spec: InstanceSpec) -> str:
        """The domain as it runs. Raises GuestNotFoundError."""
        return self._host.call(spec.name, lambda connection: str(self._own(connection, spec).XMLDesc(0)))

    def refuse_foreign(self, spec: InstanceSpec) -> None:
        """Raise GuestExistsError when a guest that is not this one of ours has its name or uuid."""

        def work(connection: lv.Connection) -> None:
            same_uuid = lv.lookup(connection.lookupByUUIDString, spec.uuid)
            if same_uuid is not None and not self._is_ours(same_uuid):
                raise GuestExistsError(f"guest {spec.name}: its uuid belongs to {same_uuid.name()}, which is not ours")
            same_name = lv.lookup(connection.lookupByName, spec.name)
            if same_name is not None and same_name.UUIDString() != spec.uuid:
                raise GuestExistsError(f"guest {spec.name}: a guest of this name has the uuid {same_name.UUIDString()}")

        self._host.call(spec.name, work)

    def exists(self, spec: InstanceSpec) -> bool:
        """True when libvirt knows this guest of ours, running or not."""
        try:
            self.power(spec)
        except GuestNotFoundError:
            return False
        return True

    def boot(self, spec: InstanceSpec, xml: str) -> None:
        """Define a guest that is off and start it; it is undefined again when it does not start."""

        def work(connection: lv.Connection) -> None:
            domain = connection.defineXML(xml)
            try:
                domain.setAutostart(0)  # libvirt would start it before its networks and filters are there
                domain.create()
            except BaseException:
                lv.undefine(domain)
                raise

        self._ours.pop(spec.uuid, None)
        self._host.call(spec.name, work, _SLOW_S)

    def restart(self, spec: InstanceSpec, xml: str) -> None:
        """Stop the guest if it runs, forget saved memory, define it anew and start it. Raises GuestNotFoundError."""

        def work(connection: lv.Connection) -> None:
            domain = self._own(connection, spec)
            if _is_saved(domain):
                domain.managedSaveRemove(0)
            connection.defineXML(xml).create()

        self.stop(spec)
        self._host.call(spec.name, work, _SLOW_S)

    def start_saved(self, spec: InstanceSpec) -> None:
        """Go on from saved memory. Raises GuestNotFoundError."""
        self._host.call(spec.name, lambda connection: self._own(connection, spec).create(), memory_s(spec))

    def ask_to_shut_down(self, spec: InstanceSpec) -> None:
        """Press the guest's power button. Raises GuestNotFoundError."""

        def work(connection: lv.Connection) -> None:
            domain = self._own(connection, spec)
            lv.tolerate_wrong_state(lambda: lv.press_power_button(domain))

        self._host.call(spec.name, work)

    def stop(self, spec: InstanceSpec) -> None:
        """Pull the plug; succeed if the guest is off. Raises GuestNotFoundError."""
        self._host.call(_stop_lane(spec), lambda connection: _stop(self._own(connection, spec)), _SLOW_S)
        self._host.calls.settle(spec.name, _SETTLE_S)

    def ask_agent(self, spec: InstanceSpec, work: Callable[[lv.Domain], Result], timeout_s: float) -> Result:
        """What `work` returns for the guest, on a lane of its agent's own. Raises GuestNotFoundError."""
        return self.ask_beside(spec, "agent", work, timeout_s)

    def ask_beside(
        self, spec: InstanceSpec, what: str, work: Callable[[lv.Domain], Result], timeout_s: float | None = None
    ) -> Result:
        """What `work` returns for the guest, on a lane beside its own, named `what`. Raises GuestNotFoundError."""
        return self._host.call(f"{spec.name} ({what})", lambda c: work(self._own(c, spec)), timeout_s)

    def ask(self, spec: InstanceSpec, work: Callable[[lv.Domain], Result], timeout_s: float | None = None) -> Result:
        """What `work` returns for the guest, on its lane. Raises GuestNotFoundError."""
        return self._host.call(spec.name, lambda c: work(self._own(c, spec)), timeout_s)

    def define(self, spec: InstanceSpec, xml: str) -> None:
        """Have `xml` be what the guest is when it is started next. Raises GuestNotFoundError."""

        def work(connection: lv.Connection) -> None:
            self._own(connection, spec)
            connection.defineXML(xml)

        self._host.call(spec.name, work)

    def documents_of_others(self, spec: InstanceSpec) -> list[tuple[str, str]]:
        """Every other guest's name and domain, as it runs or would run, whoever made it."""

        def work(connection: lv.Connection) -> list[tuple[str, str]]:
            others = [domain for domain in connection.listAllDomains() if domain.UUIDString() != spec.uuid]
            found = [(domain.name(), lv.document_of(domain)) for domain in others]
            return [(name, document) for name, document in found if document is not None]

        return self._host.call("(disks)", work)

    def pause(self, spec: InstanceSpec) -> None:
        """Freeze the CPUs."""
        self._host.call(spec.name, lambda connection: self._own(connection, spec).suspend())

    def unpause(self, spec: InstanceSpec) -> None:
        """Let the CPUs go on."""
        self._host.call(spec.name, lambda connection: self._own(connection, spec).resume())

    def save(self, spec: InstanceSpec) -> None:
        """Write memory to libvirt's own directory and stop."""
        self._host.call(spec.name, lambda connection: self._own(connection, spec).managedSave(0), memory_s(spec))

    def remove(self, spec: InstanceSpec) -> None:
        """Stop and undefine the guest, with all that libvirt keeps of it; succeed if it is gone.

        A foreign guest that has this uuid is left alone.
        """

        def work(connection: lv.Connection) -> None:
            domain = lv.lookup(connection.lookupByUUIDString, spec.uuid)
            if domain is None or not self._is_ours(domain):
                return
            _stop(domain)
            lv.undefine(domain)

        try:
            self._host.call(_stop_lane(spec), work, _SLOW_S)
        except GuestNotFoundError:  # it went while we were at it
            return

    def vcpus_used(self) -> int:
        """The virtual CPUs of all running guests, ours or not."""

        def work(connection: lv.Connection) -> int:
            stats = connection.getAllDomainStats(lv.STATS_VCPU, lv.STATS_RUNNING | lv.STATS_NOWAIT)
            return sum(int(facts.get("vcpu.current") or domain.info()[3]) for domain, facts in stats)

        return self._host.call("(resources)", work)

    def is_ours(self, domain: lv.Domain) -> bool:
        """True when it carries our stamp; within a call. Asks once about each guest."""
        uuid = domain.UUIDString()
        if uuid not in self._ours:
            self._ours[uuid] = self._is_ours(domain)
        return self._ours[uuid]

    def _read_all(self, connection: lv.Connection) -> tuple[list[Row], set[str], dict[str, bool]]:
        rows, ours = [], {}
        for domain, state in self.states(connection):
            row = Row(domain.name(), domain.UUIDString(), state)
            rows.append(row)
            known = self._ours.get(row.uuid)
            ours[row.uuid] = self._is_ours(domain) if known is None else known
        saved = {domain.UUIDString() for domain in connection.listAllDomains(lv.LIST_MANAGED_SAVE)}
        return rows, saved, ours

    def states(self, connection: lv.Connection) -> list[tuple[lv.Domain, int]]:
        """Every guest with libvirt's code for its state; within a call."""
        stats = connection.getAllDomainStats(lv.STATS_STATE, lv.STATS_NOWAIT)
        return [(domain, facts["state.state"]) for domain, facts in stats]

    def _own(self, connection: lv.Connection, spec: InstanceSpec) -> lv.Domain:
        domain = lv.lookup(connection.lookupByUUIDString, spec.uuid)
        if domain is None or not self._is_ours(domain):
            raise GuestNotFoundError(f"guest {spec.name}: the hypervisor does not know it")
        return domain

    def _is_ours(self, domain: lv.Domain) -> bool:
        stamp = Stamp.read(lv.metadata_of(domain, NAMESPACE))
        return stamp is not None and stamp.cluster == self._cluster and stamp.uuid == domain.UUIDString()


def memory_s(spec: InstanceSpec) -> float:
    """How many seconds saving the guest's memory may take, or going on from it."""
    return _MEMORY_S + spec.memory_mb / _SLOWEST_MB_S


def _stop_lane(spec: InstanceSpec) -> str:
    return f"{spec.name} (stop)"


def _stop(domain: lv.Domain) -> None:
    if domain.isActive():
        lv.tolerate_wrong_state(domain.destroy)


def _is_saved(domain: lv.Domain) -> bool:
    return bool(domain.hasManagedSaveImage(0))


def power_of(state: int, *, saved: bool) -> Power:
    """The power state by libvirt's code; `saved`: there is memory to go on from."""
    if state == _PMSUSPENDED or (saved and state == Power.SHUTOFF):
        return Power.SUSPENDED
    return Power(state)
