"""The pool: its hosts' servers, its database, and everything a test does behind the API's back."""

from __future__ import annotations

import contextlib
import itertools
import random
import ssl
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.fakes.xenapi import certificates, storage, world
from tests.fakes.xenapi.calls import Dispatcher
from tests.fakes.xenapi.database import Database, Record
from tests.fakes.xenapi.disks import Disks
from tests.fakes.xenapi.faults import Faults
from tests.fakes.xenapi.guests import Guest
from tests.fakes.xenapi.lifecycle import refresh
from tests.fakes.xenapi.machines import add_interface, new_metrics
from tests.fakes.xenapi.model import load
from tests.fakes.xenapi.registry import Context
from tests.fakes.xenapi.server import Server
from tests.fakes.xenapi.transfer import Transfers

GIB = 1 << 30


@dataclass(slots=True, eq=False)
class Host:
    """One host. url is https://ADDRESS:PORT once the pool listens."""

    name: str
    address: str
    is_master: bool = False
    ref: str = ""
    uuid: str = ""
    url: str = ""


@dataclass(slots=True, eq=False)
class Call:
    """One call as it came. args: without the session. error: what it was answered with, when it failed at once."""

    method: str
    args: tuple[Any, ...]
    session: str
    host: str
    error: list[str] | None = None


@dataclass(slots=True)
class User:
    """Who may log in; role is pool-admin or read-only."""

    password: str
    role: str = "pool-admin"


@dataclass(slots=True)
class Settings:
    """tools: guests have PV drivers from their start. coalesce: base copies nobody needs vanish."""

    tools: bool = True
    coalesce: bool = True


@dataclass(slots=True)
class Target:
    """An iSCSI target: sizes of its LUNs by number; chap is (user, password), empty for none."""

    luns: dict[str, int]
    chap: tuple[str, str] = ("", "")
    port: str = "3260"


class Pool:
    """A pool of two hosts. See the package's docstring."""

    def __init__(self, folder: Path | str | None = None, *, memory: int = 64 * GIB, sr_size: int = 500 * GIB) -> None:
        """folder: for disks and certificates, kept; without one it is a temporary one. Sizes in bytes."""
        self._temporary = None if folder else tempfile.TemporaryDirectory(prefix="pool-")
        self.folder = Path(folder or self._temporary.name)  # type: ignore[union-attr]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.username, self.password = "root", "secret"
        self.users = {self.username: User(self.password)}
        self.hosts = [Host(*one) for one in zip(("alpha", "beta"), certificates.ADDRESSES, strict=True)]
        self.hosts[0].is_master = True
        self.settings, self.faults = Settings(), Faults()
        self.calls: list[Call] = []
        self.full: set[str] = set()
        self.targets: dict[tuple[str, str], Target] = {}
        self.secrets: dict[str, str] = {}
        self.working: set[str] = set()
        self.stopping = False
        self.db, self.disks = Database(load()), Disks(self.folder / "disks")
        self.dispatcher, self.transfers = Dispatcher(self), Transfers(self)
        self._guests: dict[str, Guest] = {}
        self._domids = itertools.count(1)
        with self.db.changed:
            world.populate(self.db, self.hosts, memory, sr_size)
            refresh(self.db)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._servers = [Server(self, host, self._tls) for host in self.hosts]
        self.ca_file = certificates.write_authority(self.folder)
        self._tls.load_cert_chain(certificates.write_certificate(self.folder))
        self._port = 0

    # -- life

    def start(self) -> Pool:
        """Listen; returns itself."""
        self.stopping = False
        for attempt in itertools.count():
            port = self._port or random.randint(32768, 60999)
            try:
                self._port = self._bind(port)
                break
            except OSError:
                if self._port or attempt > 50:
                    raise
        for host, server in zip(self.hosts, self._servers, strict=True):
            host.url = f"https://{host.address}:{self._port}"
            server.start()
        return self

    def _bind(self, port: int) -> int:
        """Take the same port on every address, or none."""
        try:
            for server in self._servers:
                server.bind(port)
        except OSError:
            for server in self._servers:
                server.stop()
            raise
        return port

    def stop(self) -> None:
        """Stop listening and let everybody go who waits."""
        self.faults.release()
        for server in self._servers:
            server.stop()
        with self.db.changed:
            self.stopping = True
            self.db.changed.notify_all()
        self.dispatcher.join()
        if self._temporary:
            self._temporary.cleanup()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- who is who

    @property
    def url(self) -> str:
        """The master's."""
        return self.master.url

    @property
    def master(self) -> Host:
        """The host that answers calls."""
        return next(host for host in self.hosts if host.is_master)

    @property
    def slave(self) -> Host:
        """The host that says HOST_IS_SLAVE."""
        return self.other(self.master)

    def other(self, host: Host) -> Host:
        """The other one."""
        return next(one for one in self.hosts if one is not host)

    def host_of(self, ref: str) -> Host:
        """The host of a reference."""
        return next(host for host in self.hosts if host.ref == ref)

    def host(self, name: str) -> Host:
        """The host of a name."""
        return next(host for host in self.hosts if host.name == name)

    def make_master(self, name: str) -> None:
        """Designate another master; all connections are cut."""
        with self.db.changed:
            for host in self.hosts:
                host.is_master = host.name == name
            self.db.update("pool", next(iter(self.db.all("pool"))), master=self.master.ref)
        for server in self._servers:
            server.cut()

    # -- looking

    def records(self, kind: str) -> dict[str, Record]:
        """All records of a class, by reference: a copy; integers are int here."""
        with self.db.changed:
            return {ref: dict(record) for ref, record in self.db.all(kind).items()}

    def record(self, kind: str, ref: str) -> Record:
        """A copy of one record."""
        with self.db.changed:
            return dict(self.db.get(kind, ref))

    def find(self, kind: str, **values: Any) -> list[str]:
        """References of the records with these values."""
        with self.db.changed:
            return self.db.find(kind, **values)

    def vms(self) -> dict[str, Record]:
        """The VMs proper, by reference: no templates, snapshots or control domains."""
        kinds = ("is_a_template", "is_a_snapshot", "is_control_domain")
        return {ref: vm for ref, vm in self.records("VM").items() if not any(vm[kind] for kind in kinds)}

    def sr(self, name: str) -> str:
        """The storage of a name."""
        return self.find("SR", name_label=name)[0]

    def local_sr(self, host: str) -> str:
        """The storage that only this host has."""
        return self.sr(f"local-{host}")

    @property
    def shared_sr(self) -> str:
        """The storage that all hosts have."""
        return self.sr("shared")

    def network(self, name: str) -> str:
        """The network of a name."""
        return self.find("network", name_label=name)[0]

    @property
    def template(self) -> str:
        """The template that comes with the pool."""
        return self.find("VM", is_default_template=True)[0]

    def calls_of(self, method: str) -> list[Call]:
        """The calls of one method, Async or not."""
        return [call for call in list(self.calls) if call.method.removeprefix("Async.") == method]

    def vdi_bytes(self, ref: str, offset: int = 0, size: int = -1) -> bytes:
        """What is on a disk, or a part of it."""
        return self.disks.read(self.record("VDI", ref)["uuid"], offset, size)

    def leftovers(self) -> dict[str, list[str]]:
        """Names of what somebody made and is there still: VMs and snapshots, VDIs, iSCSI SRs, pending tasks."""
        own: dict[str, Callable[[Record], bool]] = {
            "VM": lambda one: not (one["is_default_template"] or one["is_control_domain"]),
            "VDI": lambda _one: True,
            "SR": lambda one: "iscsi" in one["type"],
            "task": lambda one: one["status"] == "pending",
        }
        found = {
            kind: [one["name_label"] for one in self.records(kind).values() if ours(one)] for kind, ours in own.items()
        }
        return {kind: names for kind, names in found.items() if names}

    # -- acting

    def write_vdi(self, ref: str, offset: int, data: bytes) -> None:
        """Write to a disk as a guest would."""
        self.disks.write(self.record("VDI", ref)["uuid"], offset, data)
        with self._changing() as x:
            storage.measure(x, self.db.get("VDI", ref)["SR"])

    def guest(self, vm: str) -> Guest:
        """The inside of a VM."""
        with self.db.changed:
            if vm not in self._guests:
                self.db.get("VM", vm)
                self._guests[vm] = Guest(self, vm)
            return self._guests[vm]

    def forget_guest(self, vm: str) -> None:
        """The VM is destroyed."""
        self._guests.pop(vm, None)

    def next_domid(self) -> int:
        """A domain's number."""
        return next(self._domids)

    def add_sr(self, name: str, *, kind: str = "ext", size: int = 100 * GIB, hosts: Sequence[str] = ("alpha",),
               **values: Any) -> str:  # fmt: skip
        """One more storage, connected to these hosts."""
        with self._changing():
            return world.add_sr(self.db, [self.host(one).ref for one in hosts], name, kind=kind, size=size, **values)

    def add_network(self, name: str, **values: Any) -> str:
        """One more network."""
        with self._changing():
            bridge = {"bridge": f"xapi{self.next_domid() + 100}"}
            return self.db.create("network", {"name_label": name} | bridge | values)

    def remove(self, kind: str, ref: str) -> None:
        """One less of anything, just so."""
        with self._changing():
            self.db.destroy(kind, ref)

    def add_vm(self, name: str, **values: Any) -> str:
        """One more VM, without devices."""
        with self._changing() as x:
            facts = world.VM_NEEDS | {"name_label": name, "metrics": new_metrics(x)}
            return self.db.create("VM", facts | values)

    def add_vif(self, vm: str, network: str, device: str = "0") -> str:
        """One more interface."""
        with self._changing() as x:
            self.db.update("VM", vm, other_config=self.db.get("VM", vm)["other_config"] | {"mac_seed": vm})
            return add_interface(x, vm, network, device)

    def add_vdi(self, name: str, sr: str, size: int, data: bytes = b"") -> str:
        """One more disk, with these bytes at its start."""
        with self._changing() as x:
            kind = self.db.get("SR", sr)["type"]
            ref = storage.add(x, sr, storage.rounded(size, kind), name_label=name, type="user")
            self.disks.write(self.db.get("VDI", ref)["uuid"], 0, data)
            return ref

    def add_user(self, name: str, password: str, role: str = "pool-admin") -> None:
        """One more who may log in."""
        self.users[name] = User(password, role)

    def add_target(self, address: str, iqn: str, luns: dict[str, int], chap: tuple[str, str] = ("", ""),
                   port: str = "3260") -> None:  # fmt: skip
        """An iSCSI target that hosts reach: sizes of its LUNs by number."""
        self.targets[address, iqn] = Target(dict(luns), chap, port)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Context]:
        with self.db.changed:
            yield Context(self, self.master)
            refresh(self.db)

    # -- faults of the pool as a whole

    def expire_sessions(self) -> None:
        """Invalidate every session."""
        with self._changing():
            for session in list(self.db.all("session")):
                self.db.destroy("session", session)

    def fill(self, sr: str) -> None:
        """Leave no room on a storage."""
        with self._changing() as x:
            self.full.add(sr)
            storage.measure(x, sr)

    def free(self, sr: str) -> None:
        """Give its room back."""
        with self._changing() as x:
            self.full.discard(sr)
            storage.measure(x, sr)

    def kill_host(self, name: str) -> None:
        """A host loses its power: it is not live, and its VMs run no more without anybody having noticed."""
        with self._changing():
            self.db.update("host_metrics", self.db.get("host", self.host(name).ref)["metrics"], live=False)

    def expire_certificate(self, expired: bool = True) -> None:
        """Show an expired certificate from now on (or a good one again); all connections are cut."""
        self._tls.load_cert_chain(certificates.write_certificate(self.folder, expired=expired))
        for server in self._servers:
            server.cut()

    @contextlib.contextmanager
    def cut_off(self, *names: str) -> Iterator[None]:
        """Nothing listens, on any host or on those named."""
        servers = [server for host, server in zip(self.hosts, self._servers, strict=True)
                   if not names or host.name in names]  # fmt: skip
        for server in servers:
            server.stop()
        try:
            yield
        finally:
            for server in servers:
                server.bind(self._port)
                server.start()

    # -- for the servers

    def note(self, method: str, args: Sequence[Any], host: Host, session: Any = "") -> Call:
        """Write a call down."""
        call = Call(method, tuple(args), str(session), host.name)
        self.calls.append(call)
        return call
