"""Live migration: the guest's memory, and where storage is not shared its disks, move while it runs.

libvirt talks to libvirt (peer to peer), so the guest's fate never hangs on this daemon. A migration that a daemon left
behind is aborted by the next one, before anything is decided about it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from lxml import etree

from virt.disk import remove_file
from virt.driver import Progress
from virt.errors import (
    DriverTimeoutError,
    GuestNotFoundError,
    GuestStateError,
    HypervisorError,
    HypervisorUnreachableError,
    VirtError,
)
from virt.libvirt import host as lv
from virt.libvirt.build import Builder
from virt.libvirt.domains import Domains
from virt.libvirt.layout import Layout
from virt.libvirt.peer import Folder, Peers, bracketed
from virt.libvirt.resize import sees_ours
from virt.power_state import Power
from virt.spec import InstanceSpec

LOG = logging.getLogger(__name__)
_POLL_S, _JOB_S, _ABORT_S, _GRACE_S = 0.2, 10.0, 60.0, 120.0
_FORCED_MS = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How guests are migrated: the flags live_migration_*. bandwidth in MiB/s, 0 for no limit."""

    tls: bool = True
    tunnelled: bool = False
    bandwidth: int = 0
    downtime_ms: int = 500
    timeout_s: float = 1800.0
    force_complete: bool = False
    auto_converge: bool = True
    post_copy: bool = False
    unsafe: bool = False

    def flags(self, *, shared: bool) -> int:
        """What libvirt is asked for."""
        wanted = (
            (lv.MIGRATE_DISKS, not shared),
            (lv.MIGRATE_UNSAFE, shared and self.unsafe),
            (lv.MIGRATE_TLS, self.tls),
            (lv.MIGRATE_TUNNELLED, self.tunnelled),
            (lv.MIGRATE_AUTO_CONVERGE, self.auto_converge),
            (lv.MIGRATE_POST_COPY, self.post_copy),
        )
        return sum((int(flag) for flag, is_wanted in wanted if is_wanted), int(lv.MIGRATE))

    def parameters(self, address: str, disks: list[str], *, shared: bool) -> dict[str, Any]:
        """Where to, how fast, and which disks."""
        found: dict[str, Any] = {}
        if not self.tunnelled:
            found[lv.TO_URI] = f"tcp://{bracketed(address)}"
        if self.bandwidth:
            found[lv.TO_BANDWIDTH] = self.bandwidth
        if not shared:
            found[lv.TO_DISKS] = disks
        return found


class Migrator:
    """Migrates guests of one libvirt away."""

    def __init__(self, domains: Domains, builder: Builder, peers: Peers, manner: Manner) -> None:
        self._domains, self._builder, self._peers, self._manner = domains, builder, peers, manner

    def prepare(self, spec: InstanceSpec) -> None:
        """On the destination: have a directory for the guest's files, unless it is there because it is shared."""
        layout = self._builder.layout(spec.name)
        if not layout.directory.exists():
            self._builder.make_directory(layout)
            layout.incoming.touch()
            self._builder.finish(spec.name)

    def migrate(self, spec: InstanceSpec, dest: str, progress: Progress) -> None:
        """Move a running guest; on return it runs there and is gone here.

        On an error it runs here, or DriverTimeoutError says that nobody knows. Raises GuestNotFoundError,
        GuestStateError.
        """
        power = self._domains.power(spec)
        if not power.is_on:
            raise GuestStateError(f"guest {spec.name}: is {power.name}, so it cannot be migrated")
        layout = self._builder.layout(spec.name)
        peer = self._peers.reach(dest)
        try:
            folder = peer.folder(layout.directory)
            try:
                self._migrate(spec, dest, layout, folder, progress)
            finally:
                folder.close()
        finally:
            peer.close()

    def forget(self, spec: InstanceSpec) -> None:
        """Remove the files of a guest that is not here, on a host that it came to or left with its disks."""
        layout = self._builder.layout(spec.name)
        if layout.incoming.exists() or layout.outgoing.exists():
            self._builder.remove(spec.name)

    def abort_left_behind(self, host: lv.Host) -> None:
        """Abort the migrations that an earlier daemon of this host began, and wait for their end."""
        for mark in sorted(self._builder.instances_path.glob(f"*/{Layout.MIGRATING}")):
            name = mark.parent.name
            try:
                _abort_and_wait(host, name)
            except GuestNotFoundError:
                LOG.info("guest %s: its migration ended without a daemon, and it is not here", name)
                continue
            except VirtError as exc:
                LOG.warning("guest %s: its migration cannot be aborted: %s", name, exc)
                continue
            remove_file(mark)

    def _migrate(self, spec: InstanceSpec, dest: str, layout: Layout, folder: Folder, progress: Progress) -> None:
        shared = sees_ours(folder, layout)
        if not shared:
            for path in (layout.kernel, layout.ramdisk, layout.config_drive, layout.nvram):
                if path.exists():
                    folder.put(path, path.name, progress)
        with _marked(layout, shared=shared):
            self._run(spec, dest, progress, shared=shared)
        with suppress(VirtError):  # then it is only known a little longer how the guest came there
            folder.remove(layout.incoming.name)

    def _run(self, spec: InstanceSpec, dest: str, progress: Progress, *, shared: bool) -> None:
        progress("copying memory")
        own = self._own_disks(spec)
        shared = shared or not own  # told of no disk, libvirt would copy them all, volumes onto themselves
        flags = self._manner.flags(shared=shared)
        parameters = self._manner.parameters(dest, own, shared=shared)
        uri = self._peers.uri_of(dest)

        def work(domain: lv.Domain) -> None:
            domain.migrateToURI3(uri, parameters, flags)

        move = _Move(self._domains, spec, work, self._manner.timeout_s + _GRACE_S)
        try:
            self._follow(spec, move, progress)
        except BaseException:
            self._abort(spec, move)
            if move.error is None:
                return  # it had arrived before it could be aborted
            raise
        if move.error is not None:
            raise self._explained(spec, dest, move.error) from move.error
        LOG.info("guest %s: migrated to %s", spec.name, dest)

    def _follow(self, spec: InstanceSpec, move: _Move, progress: Progress) -> None:
        deadline, forced, patient = time.monotonic() + self._manner.timeout_s, False, False
        while not move.ended.wait(_POLL_S):
            job = self._job(spec)
            if job is None:
                continue
            if not patient:
                self._ask_job(spec, lambda domain: domain.migrateSetMaxDowntime(self._manner.downtime_ms))
                patient = True
            progress(_words(job))
            if time.monotonic() < deadline:
                continue
            if not self._manner.force_complete:
                raise HypervisorError(f"guest {spec.name}: did not migrate within {self._manner.timeout_s:g} s")
            if not forced:
                self._force(spec)
                forced = True

    def _force(self, spec: InstanceSpec) -> None:
        LOG.warning("guest %s: its migration does not end: forced", spec.name)
        if self._manner.post_copy:
            self._ask_job(spec, lambda domain: domain.migrateStartPostCopy(0))
        else:
            self._ask_job(spec, lambda domain: domain.migrateSetMaxDowntime(_FORCED_MS))

    def _abort(self, spec: InstanceSpec, move: _Move) -> None:
        """End a migration, and wait for its end. Raises DriverTimeoutError when it does not end."""
        deadline = time.monotonic() + _ABORT_S
        while not move.ended.wait(_POLL_S):
            self._ask_job(spec, lambda domain: domain.abortJob())
            if time.monotonic() > deadline:
                raise DriverTimeoutError(f"guest {spec.name}: its migration cannot be aborted")

    def _ask_job(self, spec: InstanceSpec, work: Any) -> None:
        with suppress(GuestNotFoundError, GuestStateError, HypervisorError):  # it ended meanwhile, as its end will tell
            self._domains.ask_beside(spec, "migration job", work, _JOB_S)

    def _job(self, spec: InstanceSpec) -> dict[str, Any] | None:
        try:
            return self._domains.ask_beside(spec, "migration job", lv.outgoing_job, _JOB_S)
        except (GuestNotFoundError, GuestStateError, HypervisorError):
            return None

    def _explained(self, spec: InstanceSpec, dest: str, error: BaseException) -> BaseException:
        """The error, if the guest runs here; else nobody knows."""
        unknown = DriverTimeoutError(f"guest {spec.name}: nobody knows where its migration to {dest} ended: {error}")
        if isinstance(error, HypervisorUnreachableError | DriverTimeoutError):
            return unknown
        try:
            power = self._domains.power(spec)
        except VirtError:
            return unknown
        if power is not Power.RUNNING and power is not Power.PAUSED:
            return unknown
        return HypervisorError(f"guest {spec.name} stays here: {error}")

    def _own_disks(self, spec: InstanceSpec) -> list[str]:
        """Targets of the disks that are files in the guest's directory and can be written to."""
        directory = str(self._builder.layout(spec.name).directory) + "/"
        found = []
        for disk in etree.fromstring(self._domains.live_xml(spec)).findall("devices/disk"):
            source, target = disk.find("source"), disk.find("target")
            if source is None or target is None or disk.find("readonly") is not None:
                continue
            if str(source.get("file", "")).startswith(directory):
                found.append(str(target.get("dev")))
        return found


class _Move:
    """A migration that runs in a thread of its own, so that it can be followed and aborted."""

    def __init__(self, domains: Domains, spec: InstanceSpec, work: Any, timeout_s: float) -> None:
        self.ended = threading.Event()
        self._domains, self._spec, self._work, self._timeout_s = domains, spec, work, timeout_s
        self.error: BaseException | None = None
        threading.Thread(target=self._run, name=f"migration:{spec.name}", daemon=True).start()

    def _run(self) -> None:
        try:
            self._domains.ask_beside(self._spec, "migration", self._work, self._timeout_s)
        except BaseException as exc:  # noqa: BLE001 - handed to who follows it
            self.error = exc
        finally:
            self.ended.set()


@contextmanager
def _marked(layout: Layout, *, shared: bool) -> Iterator[None]:
    """While the guest is on its way its directory says so; afterwards it says that its disks went, if they did."""
    layout.migrating.touch()
    if not shared:
        layout.outgoing.touch()
    try:
        yield
    except BaseException as exc:
        if not isinstance(exc, DriverTimeoutError):
            remove_file(layout.outgoing)
            remove_file(layout.migrating)
        raise
    remove_file(layout.migrating)


def _abort_and_wait(host: lv.Host, name: str) -> None:
    deadline = time.monotonic() + _ABORT_S

    def abort(connection: lv.Connection) -> bool:
        domain = connection.lookupByName(name)
        if lv.outgoing_job(domain) is None:
            return True
        domain.abortJob()
        return False

    while not host.call(f"{name} (migration job)", abort):
        LOG.warning("guest %s: aborting the migration that an earlier daemon began", name)
        if time.monotonic() > deadline:
            raise DriverTimeoutError(f"guest {name}: its migration does not end")
        time.sleep(_POLL_S)


def _words(job: dict[str, Any]) -> str:
    left, total = job.get("memory_remaining", 0), job.get("memory_total", 0)
    disk_left, disk_total = job.get("disk_remaining", 0), job.get("disk_total", 0)
    disks = f", disks: {(disk_total - disk_left) // 1024**2} of {disk_total // 1024**2} MiB" if disk_total else ""
    return f"copying memory: {(total - left) // 1024**2} of {total // 1024**2} MiB{disks}"
