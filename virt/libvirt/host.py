"""The connection to libvirt, and the only module that imports it.

Every call has a deadline (calls.py) and a connection to itself. A lost one is replaced by the next call; one that a
call hangs on is left to that call. Errors are translated here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import libvirt
import libvirt_qemu

from virt.errors import (
    DriverTimeoutError,
    GuestAgentError,
    GuestExistsError,
    GuestNotFoundError,
    GuestStateError,
    HypervisorError,
    HypervisorUnreachableError,
    VirtError,
)
from virt.libvirt.calls import Calls

LOG = logging.getLogger(__name__)

Result = TypeVar("Result")
Connection = Any
Domain = Any

# What the rest of the driver says to libvirt, in its own words.
UNDEFINE_EVERYTHING = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)
UNDEFINE_WHAT_EVERY_HYPERVISOR_CAN = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
)
UNDEFINE_PLAINLY = 0
START_AFRESH = libvirt.VIR_DOMAIN_START_FORCE_BOOT
METADATA_ELEMENT = libvirt.VIR_DOMAIN_METADATA_ELEMENT
LIST_MANAGED_SAVE = libvirt.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE
LIST_RUNNING, LIST_PAUSED = libvirt.VIR_CONNECT_LIST_DOMAINS_RUNNING, libvirt.VIR_CONNECT_LIST_DOMAINS_PAUSED
LIST_OFF = libvirt.VIR_CONNECT_LIST_DOMAINS_SHUTOFF
AFFECT_LIVE, AFFECT_CONFIG = libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG
XML_INACTIVE = libvirt.VIR_DOMAIN_XML_INACTIVE
JOB_ENDED = libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED
STATS_STATE, STATS_VCPU = libvirt.VIR_DOMAIN_STATS_STATE, libvirt.VIR_DOMAIN_STATS_VCPU
STATS_CHEAP = (  # what libvirt knows without asking a guest's QEMU
    libvirt.VIR_DOMAIN_STATS_STATE
    | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
)
STATS_ASKED = libvirt.VIR_DOMAIN_STATS_BALLOON | libvirt.VIR_DOMAIN_STATS_BLOCK
STATS_ACTIVE = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
STATS_RUNNING = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_RUNNING
STATS_NOWAIT = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT

POOL_BUILD = libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD
UPLOAD_SPARSE = libvirt.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM
MIGRATE = (
    libvirt.VIR_MIGRATE_LIVE
    | libvirt.VIR_MIGRATE_PEER2PEER
    | libvirt.VIR_MIGRATE_PERSIST_DEST
    | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
)
MIGRATE_DISKS, MIGRATE_UNSAFE = libvirt.VIR_MIGRATE_NON_SHARED_DISK, libvirt.VIR_MIGRATE_UNSAFE
MIGRATE_TUNNELLED, MIGRATE_TLS = libvirt.VIR_MIGRATE_TUNNELLED, libvirt.VIR_MIGRATE_TLS
MIGRATE_AUTO_CONVERGE, MIGRATE_POST_COPY = libvirt.VIR_MIGRATE_AUTO_CONVERGE, libvirt.VIR_MIGRATE_POSTCOPY
TO_URI, TO_BANDWIDTH = libvirt.VIR_MIGRATE_PARAM_URI, libvirt.VIR_MIGRATE_PARAM_BANDWIDTH
TO_DISKS = libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS

_BY_CODE: dict[int, type[VirtError]] = {
    libvirt.VIR_ERR_NO_DOMAIN: GuestNotFoundError,
    libvirt.VIR_ERR_OPERATION_INVALID: GuestStateError,
    libvirt.VIR_ERR_DOM_EXIST: GuestExistsError,
    libvirt.VIR_ERR_OPERATION_TIMEOUT: DriverTimeoutError,
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE: GuestAgentError,
    getattr(libvirt, "VIR_ERR_AGENT_COMMAND_TIMEOUT", -1): GuestAgentError,  # libvirt 11 tells the two apart
}
_CANNOT = {libvirt.VIR_ERR_INVALID_ARG, libvirt.VIR_ERR_NO_SUPPORT}
_LOST = {
    libvirt.VIR_ERR_NO_CONNECT,
    libvirt.VIR_ERR_INVALID_CONN,
    libvirt.VIR_ERR_RPC,
    libvirt.VIR_ERR_AUTH_FAILED,
    libvirt.VIR_ERR_AUTH_UNAVAILABLE,
}
_LOST_ON_THE_WAY = {libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_ERR_INTERNAL_ERROR}
_THE_WAY = {libvirt.VIR_FROM_REMOTE, libvirt.VIR_FROM_RPC}
_KEEPALIVE_S, _KEEPALIVE_COUNT = 5, 3
_BACKOFF_S, _MAX_BACKOFF_S = 0.1, 2.0

_SHUT_DOWN = (
    libvirt.VIR_DOMAIN_PROCESS_SIGNAL_RT4,  # systemd
    libvirt.VIR_DOMAIN_PROCESS_SIGNAL_USR2,  # busybox
    libvirt.VIR_DOMAIN_PROCESS_SIGNAL_PWR,  # what LXC sends
)

_events = threading.Lock()
_events_run = False


class Host:
    """One libvirt. Each call has a connection to itself, which the next call finds ready.

    Two calls at a time on one connection is what libvirt's client promises, and before libvirt 10 does not keep: the
    second may wait for the first, and the first may hang.
    """

    def __init__(
        self,
        uri: str,
        *,
        calls: Calls | None = None,
        call_timeout_s: float = 30.0,
        open_timeout_s: float = 10.0,
        connect: Callable[[str], Connection] = libvirt.open,
    ) -> None:
        self.uri, self.calls = uri, calls or Calls()
        self._call_timeout_s, self._open_timeout_s, self._connect = call_timeout_s, open_timeout_s, connect
        self._idle: deque[Connection] = deque()
        self._failures, self._retry_at, self._reason = 0, 0.0, ""

    def call(self, lane: str, work: Callable[[Connection], Result], timeout_s: float | None = None) -> Result:
        """What `work` returns when it is run on a healthy connection, within its deadline, alone on its lane.

        Raises HypervisorUnreachableError, DriverTimeoutError, and libvirt's errors as ours.
        """
        connection, hung = self._healthy(), threading.Event()
        try:
            result = self.calls.run(
                lane,
                lambda: work(connection),
                self._call_timeout_s if timeout_s is None else timeout_s,
                abandoned=hung.set,
            )
        except libvirt.libvirtError as exc:
            if is_lost(exc) or not is_alive(connection):
                self._idle.clear()
                raise HypervisorUnreachableError(f"{self.uri}: {exc}") from exc
            self._idle.append(connection)
            raise _BY_CODE.get(exc.get_error_code(), HypervisorError)(f"{lane}: {exc}") from exc
        except BaseException:
            if not hung.is_set():
                self._idle.append(connection)
            raise
        self._idle.append(connection)
        return result

    def listing(self, lane: str, work: Callable[[Connection], Result]) -> Result:
        """As `call`, and HypervisorUnreachableError unless the connection is healthy afterwards."""

        def list_all(connection: Connection) -> Result:
            result = work(connection)
            if not is_alive(connection):
                raise HypervisorUnreachableError(f"{self.uri}: the connection was lost while listing")
            return result

        return self.call(lane, list_all)

    def another(self, max_calls: int) -> Host:
        """The same libvirt over a connection of its own: calls that hang there take no place from those here."""
        return Host(
            self.uri,
            calls=Calls(workers=max_calls, max_stuck=max_calls, threads=self.calls.threads),
            call_timeout_s=self._call_timeout_s,
            open_timeout_s=self._open_timeout_s,
            connect=self._connect,
        )

    def close(self) -> None:
        """Let go of the connections; the next call opens another."""
        self._idle.clear()

    def forgive(self) -> None:
        """Try again at once, however often connecting failed."""
        self._failures, self._retry_at = 0, 0.0

    def _healthy(self) -> Connection:
        connection = self._ready()
        if connection is not None:
            return connection
        if time.monotonic() < self._retry_at:
            raise HypervisorUnreachableError(self._reason)
        run_event_loop(self.calls)
        try:
            return self.calls.run("(connect)", self._open, self._open_timeout_s)
        except (libvirt.libvirtError, DriverTimeoutError) as exc:
            raise self._unreachable(str(exc)) from exc

    def _ready(self) -> Connection | None:
        """A connection that was opened before and lives; those that do not are dropped."""
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if is_alive(connection):
                    return connection
        return None

    def _open(self) -> Connection:
        connection = self._ready()
        if connection is not None:
            return connection  # another call was done with it while this one waited
        connection = self._connect(self.uri)
        _keep_alive(connection)
        self.forgive()
        LOG.debug("libvirt: connected to %s", self.uri)
        return connection

    def _unreachable(self, reason: str) -> HypervisorUnreachableError:
        self._reason = f"{self.uri}: {reason}"
        self._retry_at = time.monotonic() + min(_MAX_BACKOFF_S, _BACKOFF_S * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        return HypervisorUnreachableError(self._reason)


def is_lost(exc: libvirt.libvirtError) -> bool:
    """True when the error is about the way to libvirt, so says nothing about any guest."""
    code = exc.get_error_code()
    return code in _LOST or (code in _LOST_ON_THE_WAY and exc.get_error_domain() in _THE_WAY)


def undefine(domain: Domain) -> None:
    """Remove a domain's definition with all that libvirt keeps beside it."""
    for flags in (UNDEFINE_EVERYTHING, UNDEFINE_WHAT_EVERY_HYPERVISOR_CAN, UNDEFINE_PLAINLY):
        try:
            domain.undefineFlags(flags)
        except libvirt.libvirtError as exc:
            if flags == UNDEFINE_PLAINLY or exc.get_error_code() not in _CANNOT:
                raise
        else:
            return


def press_power_button(domain: Domain) -> None:
    """Ask the guest to shut down, by ACPI: by itself libvirt asks the agent first, and waits for one that hangs."""
    try:
        domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() not in _CANNOT:
            raise
        domain.shutdown()


def tell_init_to_shut_down(domain: Domain) -> None:
    """Send a container's init what systemd, busybox and the others take for it; they ignore what they do not know."""
    for number in _SHUT_DOWN:
        domain.sendProcessSignal(1, number, 0)


def agent_command(domain: Domain, command: str, timeout_s: int) -> str:
    """What the guest's agent answers to a command, both JSON."""
    answer: str = libvirt_qemu.qemuAgentCommand(domain, command, timeout_s, 0)
    return answer


def lookup(find: Callable[[str], Domain], key: str) -> Domain | None:
    """What `find(key)` finds; None when libvirt says that there is no such domain."""
    try:
        return find(key)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return None


def tolerate_wrong_state(work: Callable[[], object]) -> None:
    """Do `work`, unless the domain went by itself into the state it leads to."""
    try:
        work()
    except libvirt.libvirtError as exc:
        if exc.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
            raise


def metadata_of(domain: Domain, namespace: str) -> str | None:
    """The domain's metadata element of our namespace; None when it has none or went away."""
    try:
        text: str = domain.metadata(METADATA_ELEMENT, namespace)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() not in {libvirt.VIR_ERR_NO_DOMAIN_METADATA, libvirt.VIR_ERR_NO_DOMAIN}:
            raise
        return None
    return text


def is_backing_up(domain: Domain) -> bool:
    """True while a backup job of the domain runs."""
    job = domain.jobStats(0)
    return bool(job.get("type")) and job.get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP


def is_stopped_by_io_error(domain: Domain) -> bool:
    """True while QEMU holds a domain because one of its writes failed."""
    return tuple(domain.state()) == (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR)


def document_of(domain: Domain) -> str | None:
    """The domain as it runs, or as it is defined when it does not; None when it went away."""
    try:
        text: str = domain.XMLDesc(0)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return None
    return text


def outgoing_job(domain: Domain) -> dict[str, Any] | None:
    """What libvirt tells of the domain's migration to another host; None when there is none now."""
    job: dict[str, Any] = domain.jobStats(0)
    is_out = job.get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
    return job if is_out and job.get("type", libvirt.VIR_DOMAIN_JOB_NONE) != libvirt.VIR_DOMAIN_JOB_NONE else None


def can_run_guests_of(connection: Connection, cpu_xml: str) -> bool:
    """True when this host's CPU has all that the one described has."""
    compatible = {libvirt.VIR_CPU_COMPARE_IDENTICAL, libvirt.VIR_CPU_COMPARE_SUPERSET}
    return connection.compareCPU(cpu_xml, 0) in compatible


def find_pool(connection: Connection, name: str) -> Any | None:
    """A storage pool; None when there is none of this name."""
    return _found(lambda: connection.storagePoolLookupByName(name), libvirt.VIR_ERR_NO_STORAGE_POOL)


def find_volume(pool: Any, name: str) -> Any | None:
    """A file in a storage pool; None when there is none of this name."""
    return _found(lambda: pool.storageVolLookupByName(name), libvirt.VIR_ERR_NO_STORAGE_VOL)


def _found(find: Callable[[], Result], absent: int) -> Result | None:
    try:
        return find()
    except libvirt.libvirtError as exc:
        if exc.get_error_code() != absent:
            raise
        return None


def secrets_of(connection: Connection) -> list[Any]:
    """Every secret that this libvirt keeps; none where it keeps no secrets at all."""
    try:
        return list(connection.listAllSecrets())
    except libvirt.libvirtError as exc:
        if exc.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        return []


def undefine_secret(secret: Any) -> None:
    """Forget a secret; succeed if it is gone."""
    try:
        secret.undefine()
    except libvirt.libvirtError as exc:
        if exc.get_error_code() != libvirt.VIR_ERR_NO_SECRET:
            raise


def open_libvirt(uri: str) -> Connection:
    """A connection to the libvirt at `uri`."""
    return libvirt.open(uri)


def listen(connection: Connection, told: Callable[[str | None], None]) -> int:
    """Have `told` called with the uuid of each guest that starts, stops, is frozen or goes; what ends it.

    It is called by libvirt's event loop.
    """

    def heard(_connection: Connection, domain: Domain, event: int, _detail: int, _nothing: None) -> None:
        if event != libvirt.VIR_DOMAIN_EVENT_DEFINED:  # says nothing about its power
            told(domain.UUIDString())

    return int(connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, heard, None))


def stop_listening(now: Connection, connection: Connection, callback: int) -> None:
    """Undo `listen`; `now` is the connection that there is now: with another one, the listening went as well."""
    if now is connection:
        connection.domainEventDeregisterAny(callback)


def is_alive(connection: Connection) -> bool:
    """True until the connection is known to be lost; asks nobody."""
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


def filter_of(connection: Connection, name: str) -> Any | None:
    """The network filter of this name; None when there is none."""
    try:
        return connection.nwfilterLookupByName(name)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() != libvirt.VIR_ERR_NO_NWFILTER:
            raise
        return None


def filter_at(connection: Connection, dev: str) -> str | None:
    """The name of the network filter at a tap; None when there is none."""
    try:
        name: str = connection.nwfilterBindingLookupByPortDev(dev).filterName()
    except libvirt.libvirtError as exc:
        if exc.get_error_code() != libvirt.VIR_ERR_NO_NWFILTER_BINDING:
            raise
        return None
    return name


def run_event_loop(calls: Calls) -> None:
    """Have libvirt's event loop run, once per process: keepalive and noticing a lost connection need it."""
    global _events_run  # noqa: PLW0603 - libvirt's event loop is process-wide by its nature
    with _events:
        if _events_run:
            return
        libvirt.registerErrorHandler(_silent, None)
        libvirt.virEventRegisterDefaultImpl()
        _events_run = True
    calls.threads.start(_run_events, "libvirt:events")


def _run_events() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def _silent(_context: object, _error: object) -> None:
    """Keep libvirt from writing to stderr: every error reaches the log as an exception."""


def _keep_alive(connection: Connection) -> None:
    try:
        connection.setKeepAlive(_KEEPALIVE_S, _KEEPALIVE_COUNT)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:  # the in-process test driver has no wire
            raise
