"""Disks of guests as VDIs: made, found by what they are called, and removed."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from io import BytesIO
from pathlib import Path
from typing import IO

from virt import configdrive, image_format
from virt.driver import Progress, no_progress
from virt.errors import ImageError, VirtError
from virt.images import ImageCache
from virt.spec import ImageSpec, InstanceSpec
from virt.xenapi import stamps
from virt.xenapi.errors import GoneError
from virt.xenapi.helper import HelperBase, Record
from virt.xenapi.session import Session
from virt.xenapi.stamps import Role, Stamp
from virt.xenapi.transfer import Transfers

LOG = logging.getLogger(__name__)

GIB, MIB = 1024**3, 1024**2
FORMATS = frozenset({"raw", "vhd"})


class Disks(HelperBase):
    """The disks that one host's guests have in its storage repository. images_path: where images wait for upload."""

    def __init__(
        self, session: Session, stamp: Stamp, sr: str, transfers: Transfers, images: ImageCache, folder: Path
    ) -> None:
        super().__init__(session)
        self._stamp, self._sr, self._transfers = stamp, sr, transfers
        self._images, self._folder = images, folder

    def create(self, spec: InstanceSpec, role: Role, size: int) -> str:
        """An empty disk of at least `size` bytes."""
        label = stamps.disk(spec, role)
        known = set(self.call("VDI.get_by_name_label", label))
        record = {
            "name_label": label, "name_description": "", "SR": self._sr, "virtual_size": str(-(-size // MIB) * MIB),
            "type": "user", "sharable": False, "read_only": False, "xenstore_data": {}, "sm_config": {}, "tags": [],
            "other_config": self._stamp.of(spec, role=role.value),
        }  # fmt: skip
        return self.make(
            lambda: next(iter(set(self.call("VDI.get_by_name_label", label)) - known), None), "VDI.create", record
        )

    def create_from_image(
        self, spec: InstanceSpec, role: Role, image: ImageSpec, least: int, progress: Progress
    ) -> str:
        """A disk with the content of an image, inspected before a byte of it leaves this machine.

        least: bytes that it has at least. On an error nothing of it is left. Raises ImageError, HypervisorError.
        """
        link = self._folder / f"{spec.name}.{role.value}"
        try:
            progress("downloading image")
            virtual_size = self._images.provide(image, link, progress)
            image_format.refuse_if_larger(virtual_size, least // GIB, image.name, largest_gb=self._images.largest_gb)
            progress("uploading image")
            with link.open("rb") as file:
                return self._filled(spec, role, file, image.disk_format, max(virtual_size, least), progress)
        finally:
            link.unlink(missing_ok=True)

    def config_drive(self, spec: InstanceSpec) -> str:
        """The config drive by `spec`: the one that there is, when it says the same, else a new one.

        The old one is left to `remove_others`, since it may be plugged in. Raises DiskError.
        """
        data = configdrive.image(spec)
        digest = hashlib.sha256(data).hexdigest()
        for ref, record in self.find(spec, Role.CONFIG).items():
            if record["other_config"].get(stamps.SHA256) == digest:
                return ref
        with BytesIO(data) as file:
            return self._filled(spec, Role.CONFIG, file, "raw", len(data), no_progress, sha256=digest)

    def find(self, spec: InstanceSpec, role: Role, *, is_kept: bool = False) -> dict[str, Record]:
        """The disks of the guest in this role that are this host's; neither snapshots nor copies made by others."""
        return {
            ref: record
            for ref, record in self._labelled(spec, stamps.disk(spec, role, is_kept=is_kept)).items()
            if record["is_a_snapshot"] is (role is Role.SNAPSHOT)
        }

    def the(self, spec: InstanceSpec, role: Role) -> str | None:
        """The disk of a guest in a role, if there is one."""
        return next(iter(self.find(spec, role)), None)

    def rename(self, vdi: str, spec: InstanceSpec, role: Role, *, is_kept: bool = False) -> None:
        """Have a disk be this guest's on this host, in this role."""
        facts = self.call("VDI.get_other_config", vdi)
        digest = facts.get(stamps.SHA256)
        more = {"sha256": digest} if digest and role is Role.CONFIG else {}
        self.call("VDI.set_other_config", vdi, self._stamp.over(facts, spec, role=role.value, **more))
        self.call("VDI.set_name_label", vdi, stamps.disk(spec, role, is_kept=is_kept))

    def grow(self, vdi: str, size: int) -> None:
        """Have a disk that no guest uses be at least `size` bytes large."""
        if int(self.call("VDI.get_virtual_size", vdi)) < size:
            self.call("VDI.resize", vdi, str(size))

    def remove(self, vdi: str) -> None:
        """Remove a disk; succeed if it is gone."""
        self.session.destroy("VDI", vdi)

    def sweep(self, spec: InstanceSpec, *roles: Role, is_kept: bool = False) -> None:
        """Remove the guest's disks in these roles that are plugged into nothing."""
        for role in roles:
            self._remove_idle(self.find(spec, role, is_kept=is_kept))

    def sweep_all(self, spec: InstanceSpec) -> None:
        """The same for every role, and for snapshots that nobody got to name; on the storage that ours are made on.

        What has the stamps elsewhere is a copy that somebody made by hand.
        """
        for role in Role:
            found = self._labelled(spec, stamps.disk(spec, role))
            self._remove_idle({ref: record for ref, record in found.items() if record["SR"] == self._sr})

    def _remove_idle(self, disks: dict[str, Record]) -> None:
        for ref, record in disks.items():
            if not record["VBDs"]:
                self.remove(ref)

    def _labelled(self, spec: InstanceSpec, label: str) -> dict[str, Record]:
        found = {}
        for ref in self.call("VDI.get_by_name_label", label):
            with contextlib.suppress(GoneError):
                record = self.call("VDI.get_record", ref)
                config = record["other_config"]
                if self._stamp.is_on(config, spec) and config.get(stamps.HOST) == self._stamp.host:
                    found[ref] = record
        if len(found) < 2:
            return found
        return {ref: record for ref, record in found.items() if self._is_the_guests(record)}

    def _is_the_guests(self, record: Record) -> bool:
        """True unless a disk is plugged into a VM that is not the guest's: an operator's copy, or a snapshot of it."""
        vms = [self.call("VM.get_record", self.call("VBD.get_VM", vbd)) for vbd in record["VBDs"]]
        return all(vm["other_config"].get(stamps.VM) == vm["uuid"] for vm in vms)

    def _filled(
        self, spec: InstanceSpec, role: Role, file: IO[bytes], form: str, size: int, progress: Progress, **more: str
    ) -> str:  # fmt: skip
        length = file.seek(0, 2)
        file.seek(0)
        with contextlib.ExitStack() as undo:
            vdi = self.create(spec, role, size)
            undo.callback(self._abandon, vdi)
            self._transfers.upload(file, length, vdi, form, progress)
            if more:  # what it holds is noted once it holds it
                self.call("VDI.set_other_config", vdi, self._stamp.of(spec, role=role.value, **more))
            undo.pop_all()
        return vdi

    def _abandon(self, vdi: str) -> None:
        try:
            self.remove(vdi)
        except VirtError as exc:
            LOG.warning("disk %s: was not filled, and could not be removed: %s", vdi, exc)


def check_images(spec: InstanceSpec) -> None:
    """Raise ImageError unless there is a disk to boot from, of a kind that a pool takes, and room for it."""
    if spec.kernel is not None or spec.ramdisk is not None:
        raise ImageError(f"guest {spec.name}: on xenapi it boots from its disk, not from a kernel beside it")
    if spec.root_volumes:
        return
    if spec.image is None:
        raise ImageError(f"guest {spec.name} has no image to boot from")
    if spec.image.disk_format not in FORMATS:
        raise ImageError(
            f"image {spec.image.name} is {spec.image.disk_format}; xenapi takes {' and '.join(sorted(FORMATS))}"
        )
    if 0 < spec.root_gb < spec.image.min_disk_gb:
        raise ImageError(f"image {spec.image.name} needs {spec.image.min_disk_gb} GiB, root_gb is {spec.root_gb}")
