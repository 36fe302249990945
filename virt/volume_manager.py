"""Who makes the bytes of new volumes, and removes them. What is merely registered has no maker here."""

from __future__ import annotations

import importlib
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from oslo_config.cfg import ConfigOpts

from virt.errors import DiskError, DiskFullError, DriverConfigError, disk_error

ALIASES = {
    "file": "virt.volume_manager.FileVolumes",
    "nova.volume.manager.VolumeManager": "virt.volume_manager.FileVolumes",
}
_GIB = 1024**3


class VolumeManager(ABC):
    """Makes volumes of one kind. Every method is idempotent: it is repeated after a crash."""

    @classmethod
    @abstractmethod
    def from_conf(cls, conf: ConfigOpts) -> Self:
        """Build one from the configuration; DriverConfigError names an option that will not do."""

    @abstractmethod
    def location(self, name: str) -> str:
        """Where the volume called `name` is or would be: `protocol:source`, as a record keeps it."""

    @abstractmethod
    def create(self, name: str, size_gb: int) -> None:
        """Make a volume of `size_gb` GiB that reads as zeros.

        On an error nothing of it is left. Raises DiskError, also when there is one of this name; DiskFullError.
        """

    @abstractmethod
    def delete(self, location: str) -> None:
        """Remove the volume at `location`; succeed if it is gone. DiskError when it is none of this manager's."""


class FileVolumes(VolumeManager):
    """Sparse raw files in one directory, which is of this host alone or shared by all."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @classmethod
    def from_conf(cls, conf: ConfigOpts) -> Self:
        directory = Path(conf.volumes_path)
        if not directory.is_absolute():
            raise DriverConfigError(f"volumes_path = {directory}: must be an absolute path")
        return cls(directory)

    def location(self, name: str) -> str:
        return f"file:{self._directory / name}"

    def create(self, name: str, size_gb: int) -> None:
        path, size = self._directory / name, size_gb * _GIB
        try:
            # the hypervisor's user passes through, nobody but root looks around
            self._directory.mkdir(mode=0o711, parents=True, exist_ok=True)
            self._refuse_if_larger_than_room(size)
            self._make(path, size)
        except OSError as exc:
            raise disk_error(exc, path) from exc

    def delete(self, location: str) -> None:
        protocol, _, text = location.partition(":")
        path = Path(text)
        if protocol != "file" or path.parent != self._directory or path.name in {"", "..", "."}:
            raise DiskError(f"{location} is not a volume in volumes_path ({self._directory})")
        try:
            path.unlink(missing_ok=True)
        except OSError as exc:
            raise disk_error(exc, path) from exc

    def _refuse_if_larger_than_room(self, size: int) -> None:
        """A sparse file takes no room yet, but one that could never be filled is a promise that is not kept."""
        facts = os.statvfs(self._directory)
        room = facts.f_bavail * facts.f_frsize
        if room < size:
            raise DiskFullError(
                f"{self._directory}: {room / _GIB:.2f} GiB are free, a volume of {size // _GIB} GiB does not fit"
            )

    @staticmethod
    def _make(path: Path, size: int) -> None:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
        try:
            os.ftruncate(descriptor, size)
            os.fsync(descriptor)
        except BaseException:
            path.unlink()
            raise
        finally:
            os.close(descriptor)


def load(conf: ConfigOpts) -> VolumeManager:
    """The volume manager that `volume_manager` names: an alias or a dotted class. DriverConfigError names the flag."""
    name: str = conf.volume_manager
    module_name, _, attribute = ALIASES.get(name, name).rpartition(".")
    if not module_name:
        raise DriverConfigError(f"volume_manager = {name}: neither one of {', '.join(ALIASES)} nor a dotted path")
    try:
        target = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as exc:
        raise DriverConfigError(f"volume_manager = {name}: {exc}") from exc
    if not (isinstance(target, type) and issubclass(target, VolumeManager)):
        raise DriverConfigError(f"volume_manager = {name}: is not a VolumeManager")
    return target.from_conf(conf)
