"""Move a guest that is off to another size, or to another host of the pool.

The source keeps its VM and disks as they are, under another label; the destination makes a VM of its own around copies
of them: clones where both use the same storage, full copies otherwise. So a revert finds everything as it was left.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from virt.driver import Progress
from virt.errors import DiskError, GuestNotFoundError, VirtError
from virt.power_state import Power
from virt.spec import InstanceSpec
from virt.xenapi import stamps
from virt.xenapi.build import Builder, own_roles
from virt.xenapi.disks import GIB
from virt.xenapi.errors import GoneError
from virt.xenapi.guests import Guest
from virt.xenapi.helper import HelperBase
from virt.xenapi.pool import Place, Pool
from virt.xenapi.session import NULL, Session
from virt.xenapi.stamps import Role, Stage

LOG = logging.getLogger(__name__)

_GRACE_S = 30.0


class Resizer(HelperBase):
    """Both ends of a resize, for one host. copy_s: seconds that copying a disk may take."""

    def __init__(
        self, session: Session, builder: Builder, pool: Pool, place: Place, *, copy_s: float = 14400.0
    ) -> None:
        super().__init__(session)
        self._builder, self._pool, self._place, self._copy_s = builder, pool, place, copy_s

    def migrate_disk_and_power_off(self, spec: InstanceSpec, dest: str, progress: Progress) -> str:
        """Stop the guest and keep it; a repeated call returns the same. Raises GuestNotFoundError, DiskError."""
        builder = self._builder
        kept = self._kept(spec)
        if kept is None:
            guest = builder.guests.find(spec)
            if self._pool.host_called(dest) is None:
                raise DiskError(f"guest {spec.name}: no host of the pool is called {dest}, or several are")
            progress("stopping")
            if guest.power is Power.RUNNING:
                builder.power.shut_down(guest.ref, _GRACE_S)
            builder.power.stop(guest.ref)
            progress("keeping the disks")
            self._keep(guest, spec)
            kept = guest
        return json.dumps({"kept": kept.record["uuid"], "host": self._place.host.uuid})

    def finish_resize(self, spec: InstanceSpec, disk_info: str, progress: Progress) -> None:
        """Make the guest of the disks that the source keeps, at its new size; one that is there is only started."""
        builder = self._builder
        kept = self._source(spec, disk_info)
        try:
            guest = builder.guests.find(spec)
        except GuestNotFoundError:
            guest = None
        if guest is not None:
            if not guest.power.is_on:
                builder.restart(spec)
            return
        builder.remove_all(spec)
        with ExitStack() as undo:
            undo.callback(builder.take_back, spec)
            self._copy_disks(kept, spec, progress)
            builder.make_more_disks(spec)
            builder.assemble(spec, progress)
            undo.pop_all()
        LOG.info("guest %s: resized to %s", spec.name, spec.flavor)

    def confirm_resize(self, spec: InstanceSpec) -> None:
        """Remove what is kept here; succeed if it is gone."""
        kept = self._kept(spec)
        if kept is not None:
            self._builder.remove(kept)
        self._builder.disks.sweep(spec, *Role, is_kept=True)

    def revert_resize(self, spec: InstanceSpec) -> None:
        """Have the guest as it was and start it; one that was made of the new size here gives way.

        Raises GuestNotFoundError when there is neither.
        """
        builder = self._builder
        kept = self._kept(spec)
        if kept is not None:
            builder.destroy(spec)
            for vdi, role in self._roles(kept).items():
                builder.disks.rename(vdi, spec, role)
            builder.machines.finish(kept.ref, spec)
        guest = builder.guests.find(spec)
        if not guest.power.is_on:
            builder.restart(spec)

    def _keep(self, guest: Guest, spec: InstanceSpec) -> None:
        """In this order, so that what is half done is the guest still, and can be kept again or started."""
        repositories = self._builder.volumes.repositories(guest)
        for ref, vbd in self._builder.wiring.vbds(guest.ref).items():
            if stamps.VOLUME in vbd["other_config"]:
                self.session.destroy("VBD", ref)
        for sr in repositories:
            self._builder.volumes.release(sr)
        self._builder.machines.keep(guest.ref, spec)
        for vdi, role in self._roles(guest).items():
            self._builder.disks.rename(vdi, spec, role, is_kept=True)

    def _kept(self, spec: InstanceSpec) -> Guest | None:
        """The VM that this host keeps for a revert, with its disks out of the way of new ones."""
        for guest in self._builder.guests.staged(spec, Stage.KEPT):
            if guest.record["other_config"].get(stamps.HOST) == self._place.host.uuid:
                for vdi, role in self._roles(guest).items():
                    self._builder.disks.rename(vdi, spec, role, is_kept=True)
                return guest
        return None

    def _roles(self, guest: Guest) -> dict[str, Role]:
        """What each of a VM's own disks is to it."""
        own = self._builder.own_disks(guest)
        return {vdi: Role(self.call("VDI.get_other_config", vdi)[stamps.ROLE]) for vdi in own}

    def _source(self, spec: InstanceSpec, disk_info: str) -> Guest:
        """The VM that the source keeps. Raises DiskError when disk_info names none of this guest."""
        try:
            facts: dict[str, Any] = json.loads(disk_info)
            uuid = str(facts["kept"])
        except (ValueError, KeyError, TypeError) as exc:
            raise DiskError(f"guest {spec.name}: disk_info is not what migrate_disk_and_power_off returned") from exc
        try:
            ref = self.call("VM.get_by_uuid", uuid)
            guest = Guest(ref, self.call("VM.get_record", ref))
        except GoneError as exc:
            raise DiskError(f"guest {spec.name}: the pool has no VM {uuid}, which its disks are in") from exc
        if not self._builder.guests.is_ours(guest.record, spec):
            raise DiskError(f"guest {spec.name}: VM {uuid} is not its own")
        return guest

    def _copy_disks(self, kept: Guest, spec: InstanceSpec, progress: Progress) -> None:
        wanted = set(own_roles(spec))
        sizes = {Role.ROOT: spec.root_gb * GIB}
        for vdi, role in self._roles(kept).items():
            if role in wanted:
                progress(f"copying the {role.value} disk")
                least = sizes.get(role, 0)
                if self.call("VDI.get_SR", vdi) == self._place.sr:
                    self._clone(vdi, spec, role, least)
                else:
                    self._copy(vdi, spec, role, least, progress)

    def _clone(self, vdi: str, spec: InstanceSpec, role: Role, least: int) -> None:
        label = self.call("VDI.get_name_label", vdi)
        known = set(self.call("VDI.get_by_name_label", label))

        def find() -> str | None:
            return next(iter(set(self.call("VDI.get_by_name_label", label)) - known), None)

        clone = self.session.make(find, "VDI.clone", vdi, {}, timeout_s=self._copy_s)
        with self._removing_on_error(clone):
            self._builder.disks.rename(clone, spec, role)
            self._builder.disks.grow(clone, least)

    def _copy(self, vdi: str, spec: InstanceSpec, role: Role, least: int, progress: Progress) -> None:
        """Copy into a disk that has our name before the first byte is in it, so that a lost copy is found again."""
        size = int(self.call("VDI.get_virtual_size", vdi))
        copy = self._builder.disks.create(spec, role, max(size, least))
        with self._removing_on_error(copy):
            self.run("VDI.copy", vdi, NULL, NULL, copy, timeout_s=self._copy_s, progress=progress)

    @contextmanager
    def _removing_on_error(self, vdi: str) -> Iterator[None]:
        try:
            yield
        except BaseException:
            try:
                self._builder.disks.remove(vdi)
            except VirtError as exc:
                LOG.warning("disk %s: a copy for a resize stays until the guest's next try or end: %s", vdi, exc)
            raise
