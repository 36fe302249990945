"""Images of guests' root disks.

A snapshot of the disk alone, not of the VM: there is no template to be left behind. It is downloaded and removed. Each
snapshot makes the chain of the disk longer until the storage has coalesced it, so one that is too long is waited for,
but not for ever.
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from pathlib import Path

from virt import image_format
from virt.driver import Progress
from virt.errors import DiskError, VirtError, VolumeError
from virt.spec import InstanceSpec, SnapshotResult
from virt.xenapi.disks import Disks
from virt.xenapi.errors import GoneError
from virt.xenapi.guests import Guests
from virt.xenapi.helper import HelperBase
from virt.xenapi.session import Session
from virt.xenapi.stamps import Role
from virt.xenapi.transfer import Transfers

LOG = logging.getLogger(__name__)

FORMAT = "vhd"
_SNAPSHOT_S = 600.0


class Snapshotter(HelperBase):
    """Makes images of one host's guests. looks: how often, every `poll_s`, a chain of over `most` is looked at."""

    def __init__(
        self, session: Session, guests: Guests, disks: Disks, transfers: Transfers, *, most: int = 20,
        poll_s: float = 5.0, looks: int = 5,
    ) -> None:  # fmt: skip
        super().__init__(session)
        self._guests, self._disks, self._transfers = guests, disks, transfers
        self._most, self._poll_s, self._looks = most, poll_s, looks

    def snapshot(self, spec: InstanceSpec, path: Path, progress: Progress) -> SnapshotResult:
        """The root disk as a complete vhd at `path`. On an error neither that nor a snapshot is left."""
        self._guests.find(spec)
        for volume in spec.root_volumes:
            raise VolumeError(f"volume {volume.volume_id}: guest {spec.name} boots from it, and has no disk to copy")
        root = self._disks.the(spec, Role.ROOT)
        if root is None:
            raise DiskError(f"guest {spec.name}: its root disk is not in the pool")
        self._disks.sweep(spec, Role.SNAPSHOT)
        self._wait_for_chain(spec, root, progress)
        with ExitStack() as undo:
            progress("making the snapshot")
            made = self._make(root)
            undo.callback(self._drop, made, spec)
            self._disks.rename(made, spec, Role.SNAPSHOT)
            progress("downloading")
            digest = self._transfers.download(made, FORMAT, path, progress)
            undo.callback(self._drop_file, path)
            image_format.inspect(path, FORMAT, f"of guest {spec.name}")
            progress("finishing")
            undo.pop_all()
        self._drop(made, spec)
        LOG.info("guest %s: snapshot of %d bytes", spec.name, path.stat().st_size)
        return SnapshotResult(path=str(path), disk_format=FORMAT, size_bytes=path.stat().st_size, sha256=digest)

    def _make(self, root: str) -> str:
        known = set(self.call("VDI.get_snapshots", root))

        def find() -> str | None:
            return next(iter(set(self.call("VDI.get_snapshots", root)) - known), None)

        return self.session.make(find, "VDI.snapshot", root, {}, timeout_s=_SNAPSHOT_S)

    def _wait_for_chain(self, spec: InstanceSpec, root: str, progress: Progress) -> None:
        for look in range(self._looks + 1):
            length = self._chain(root)
            if length <= self._most:
                return
            if look == 0:  # has the storage look for what it can coalesce
                self.run("SR.scan", self.call("VDI.get_SR", root), timeout_s=_SNAPSHOT_S)
            progress(f"waiting for a chain of {length} disk images to be coalesced")
            if look < self._looks:
                time.sleep(self._poll_s)
        raise DiskError(f"guest {spec.name}: its disk is a chain of {length} images, more than {self._most}, and the "
                        f"storage did not coalesce it in {self._looks} looks")  # fmt: skip

    def _chain(self, vdi: str) -> int:
        """How many images a disk is made of."""
        length, parent = 1, self.call("VDI.get_sm_config", vdi).get("vhd-parent")
        while parent and length <= self._most:
            try:
                vdi = self.call("VDI.get_by_uuid", parent)
                parent = self.call("VDI.get_sm_config", vdi).get("vhd-parent")
            except GoneError:  # coalesced a moment ago
                return length
            length += 1
        return length

    def _drop(self, vdi: str, spec: InstanceSpec) -> None:
        try:
            self._disks.remove(vdi)
        except VirtError as exc:
            LOG.warning("guest %s: a snapshot of its disk stays until its next one or its end: %s", spec.name, exc)

    @staticmethod
    def _drop_file(path: Path) -> None:
        path.unlink(missing_ok=True)
