"""Images of guests' root disks.

A running guest's disk is copied by a backup job of QEMU, which shows the disk as it was when the job began, ends by
itself however much the guest writes, and never changes what the guest's disk is: after a crash there is a file too
many, and nothing to merge (docs/adr tells why). What is off is copied by qemu-img.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lxml import etree

from virt import image_format
from virt.disk import remove_file
from virt.driver import Progress
from virt.errors import DiskError, DiskFullError, GuestAgentError, GuestStateError, HypervisorError, VirtError
from virt.handover import hand_over
from virt.libvirt import host as lv
from virt.libvirt.agent import Agents
from virt.libvirt.build import Builder
from virt.libvirt.domains import Domains
from virt.libvirt.power import RUNS
from virt.libvirt.xml.backup import Backup, BackupDisk
from virt.spec import InstanceSpec, SnapshotResult
from virt.volumes import refuse_volume_root

LOG = logging.getLogger(__name__)

_POLL_S = 0.1
_PROGRESS_S = 2.0
_DEADLINE_S = 4 * 3600.0
_ABORT_S = 30.0
_THAW_TRIES = 3
_FULL = os.strerror(errno.ENOSPC)


class Snapshotter:
    """Makes snapshots of the guests of one libvirt."""

    def __init__(self, domains: Domains, builder: Builder, agents: Agents) -> None:
        self._domains, self._builder, self._agents = domains, builder, agents

    def snapshot(self, spec: InstanceSpec, path: Path, progress: Progress) -> SnapshotResult:
        """The root disk as a complete qcow2 at `path`. On an error nothing of it is left.

        Raises GuestNotFoundError, DiskError, GuestStateError when an agent in the guest hangs.
        """
        power = self._domains.power(spec)
        refuse_volume_root(spec)
        staged = self._builder.layout(spec.name).snapshot
        with ExitStack() as undo:
            self._end_job(spec)
            remove_file(staged)
            undo.callback(remove_file, staged)
            progress("copying the disk")
            if power.is_on:
                self._copy_live(spec, staged, progress)
            else:
                self._builder.copy_root(spec.name, staged, lambda: progress("copying the disk"))
            image_format.inspect(staged, "qcow2", f"of guest {spec.name}")
            undo.callback(remove_file, path)
            digest = hand_over(staged, path, progress)
            progress("copied")
            undo.pop_all()
        LOG.info("guest %s: snapshot made", spec.name)
        return SnapshotResult(path=str(path), disk_format="qcow2", size_bytes=path.stat().st_size, sha256=digest)

    def _copy_live(self, spec: InstanceSpec, staged: Path, progress: Progress) -> None:
        document = etree.fromstring(self._domains.live_xml(spec))
        disk = _target_of(document, self._builder.layout(spec.name).root)
        if disk is None:
            raise DiskError(f"guest {spec.name}: runs without its root disk")
        backup = Backup(disks=(BackupDisk(name=disk, target=str(staged)),)).xml()
        try:
            with self._quiet(spec, document):
                self._domains.ask(spec, lambda domain: domain.backupBegin(backup, None, 0))
            self._follow(spec, progress)
        except BaseException:
            self._give_up(spec)
            raise

    @contextlib.contextmanager
    def _quiet(self, spec: InstanceSpec, document: etree._Element) -> Iterator[None]:
        """Have a running guest's file systems complete on disk meanwhile, where an agent is connected that does that.

        Raises GuestAgentError when the agent hangs: one that is told to freeze does so when it wakes up, and nobody
        would be there to thaw.
        """
        if document.find("devices/channel/target[@state='connected']") is None or self._domains.power(spec) not in RUNS:
            yield
            return
        self._agents.ping(spec)
        try:
            self._freeze(spec)
            yield
        finally:
            self._thaw(spec)

    def _freeze(self, spec: InstanceSpec) -> None:
        try:
            self._agents.freeze(spec)
        except HypervisorError as exc:
            LOG.warning("guest %s: its agent does not freeze, so the snapshot is as after a crash: %s", spec.name, exc)

    def _thaw(self, spec: InstanceSpec) -> None:
        """Thaw, reviving first a guest that stands still because the copy has no room for what it writes over.

        Raises DiskFullError when it was so, and GuestAgentError when it may still be frozen.
        """
        starved = False
        for left in reversed(range(_THAW_TRIES)):
            try:
                self._agents.thaw(spec)
                break
            except (GuestStateError, HypervisorError) as exc:
                starved = self._revive(spec) or starved
                if not left:
                    words = f"guest {spec.name}: its agent did not thaw its file systems, which may be frozen: {exc}"
                    raise GuestAgentError(words) from exc
        if starved:
            raise DiskFullError(f"guest {spec.name}: snapshot: {_FULL}")

    def _revive(self, spec: InstanceSpec) -> bool:
        """Let a guest go on that QEMU stopped at a write that a copy could not keep; False when it is not so.

        Its own disk is whole: without the copy the same write succeeds.
        """
        if not self._domains.ask(spec, lv.is_stopped_by_io_error):
            return False
        self._end_job(spec)
        LOG.warning(
            "guest %s: stopped for want of room for its copy; the copy is given up, the guest goes on", spec.name
        )
        self._domains.ask(spec, lambda domain: domain.resume())
        return True

    def _follow(self, spec: InstanceSpec, progress: Progress) -> None:
        """Wait for the copy to end; `progress` may end it by raising."""
        deadline, told = time.monotonic() + _DEADLINE_S, time.monotonic()
        while job := self._job(spec):
            if time.monotonic() > deadline:
                raise DiskError(f"guest {spec.name}: its disk was not copied within {_DEADLINE_S:g} s")
            if time.monotonic() - told > _PROGRESS_S:
                told = time.monotonic()
                progress(f"copying the disk: {int(job.get('disk_processed', 0)) // 1024**2} MiB")
            time.sleep(_POLL_S)
        ended = self._ask_job(spec, lambda domain: domain.jobStats(lv.JOB_ENDED))
        if not ended.get("success"):
            reason = str(ended.get("errmsg", "the job was lost"))
            raise (DiskFullError if _FULL in reason else DiskError)(f"guest {spec.name}: snapshot: {reason}")

    def _job(self, spec: InstanceSpec) -> dict[str, Any] | None:
        found = self._ask_job(spec, lambda domain: domain.jobStats(0))
        return found if found.get("type") else None

    def _ask_job(self, spec: InstanceSpec, work: Callable[[lv.Domain], dict[str, Any]]) -> dict[str, Any]:
        try:
            return self._domains.ask(spec, work)
        except GuestStateError as exc:
            raise DiskError(f"guest {spec.name}: it went off during the snapshot") from exc

    def _give_up(self, spec: InstanceSpec) -> None:
        """End the job after a failure, whose own error is the one to raise; the next snapshot tries again."""
        try:
            self._end_job(spec)
            self._revive(spec)
        except VirtError as exc:
            LOG.warning("guest %s: the copy of its disk may still be running: %s", spec.name, exc)

    def _end_job(self, spec: InstanceSpec) -> None:
        """End a backup job that is still there, also one that a crashed daemon left."""
        deadline = time.monotonic() + _ABORT_S
        while self._domains.ask(spec, _abort):
            if time.monotonic() > deadline:
                raise HypervisorError(f"guest {spec.name}: the backup job did not end within {_ABORT_S:g} s")
            time.sleep(_POLL_S)


def _abort(domain: lv.Domain) -> bool:
    """Ask a backup job to end; False when there is none."""
    if not domain.isActive() or not lv.is_backing_up(domain):
        return False
    lv.tolerate_wrong_state(domain.abortJob)
    return True


def _target_of(document: etree._Element, root: Path) -> str | None:
    for disk in document.findall("devices/disk"):
        source, target = disk.find("source"), disk.find("target")
        if source is not None and target is not None and source.get("file") == str(root):
            return target.get("dev")
    return None
