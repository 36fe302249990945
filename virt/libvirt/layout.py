"""Where a guest's files are: `instances_path/<name>/`, names from a closed set."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from virt.errors import DiskError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True, slots=True)
class Layout:
    """One guest's directory. suffix: `.rescue` for what a rescue boots, which lies beside the guest's own files."""

    directory: Path
    suffix: str = ""
    KEPT: ClassVar[str] = "_resize"  # after the name of a directory that a resize keeps
    MIGRATING: ClassVar[str] = "migrating"

    @classmethod
    def of(cls, instances_path: Path, name: str) -> Layout:
        """The directory of the guest called `name`; DiskError for a name that is not one plain path component."""
        if not cls.is_name(name):
            raise DiskError(f"{name!r} cannot be a guest's directory")
        return cls(instances_path / name)

    @staticmethod
    def is_name(name: str) -> bool:
        """True when a guest can be called so; `lost+found` and `.snapshot` of a file system cannot."""
        return _NAME.fullmatch(name) is not None

    @property
    def rescue(self) -> Layout:
        """Where what a rescue boots is."""
        return Layout(self.directory, ".rescue")

    @property
    def root(self) -> Path:
        """The root disk, a qcow2."""
        return self.directory / f"disk{self.suffix}"

    @property
    def root_base(self) -> Path:
        """The image that the root disk is an overlay of: a hard link on the cache."""
        return self.directory / f"disk{self.suffix}.base"

    @property
    def ephemeral(self) -> Path:
        """The ephemeral disk, raw."""
        return self.directory / "disk.local"

    @property
    def swap(self) -> Path:
        """The swap disk, raw."""
        return self.directory / "disk.swap"

    @property
    def config_drive(self) -> Path:
        """What the guest is told, as a file system: made anew whenever the guest is defined."""
        return self.directory / "disk.config"

    @property
    def rootfs(self) -> Path:
        """The root directory of a container."""
        return self.directory / "rootfs"

    @property
    def config(self) -> Path:
        """What a container is told: a directory with the files of a config drive."""
        return self.directory / "config"

    @property
    def nvram(self) -> Path:
        """What a UEFI firmware remembers of this guest."""
        return self.directory / "nvram.fd"

    @property
    def kernel(self) -> Path:
        """The kernel that the hypervisor loads: a hard link on the cache."""
        return self.directory / f"kernel{self.suffix}"

    @property
    def ramdisk(self) -> Path:
        """Its ramdisk: a hard link on the cache."""
        return self.directory / f"ramdisk{self.suffix}"

    @property
    def console_log(self) -> Path:
        """What the guest prints; virtlogd keeps older parts beside it as `.0`, `.1`."""
        return self.directory / "console.log"

    @property
    def bootable(self) -> tuple[Path, ...]:
        """The files that a boot may need."""
        return (self.root, self.root_base, self.kernel, self.ramdisk)

    @property
    def snapshot(self) -> Path:
        """A snapshot that is being made."""
        return self.directory / "disk.snapshot"

    @property
    def incoming(self) -> Path:
        """There on a host that prepared itself for a guest, until the guest came."""
        return self.directory / "incoming"

    @property
    def outgoing(self) -> Path:
        """There on a host that a guest migrates away from with its disks."""
        return self.directory / "outgoing"

    @property
    def migrating(self) -> Path:
        """There while this host's daemon has a guest migrate away."""
        return self.directory / self.MIGRATING

    @property
    def unfinished(self) -> Path:
        """There while the guest is being made: what has it after a crash may be thrown away."""
        return self.directory / "unfinished"
