"""Make a container's files, and remove them."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import time
from pathlib import Path

from virt import configdrive, image_format, rootfs
from virt.disk import remove_tree
from virt.driver import Progress
from virt.errors import (
    HypervisorError,
    ImageError,
    ProcessError,
    UnsupportedError,
    disk_error,
)
from virt.execute import run
from virt.libvirt import lxc_keeper
from virt.libvirt.build import Builder
from virt.libvirt.domain_lxc import IDS, first_id
from virt.libvirt.layout import Layout
from virt.rootfs import Bounds
from virt.spec import ImageSpec, InstanceSpec

_GIB = 1024**3
_KEEPER_S = 30.0
_KEEPER_ENDS_S = 5.0
_POLL_S = 0.02


class ContainerBuilder(Builder):
    """Containers' directories below `instances_path`: a root unpacked from an archive, and what the container is told.

    max_gb: bytes that an archive may unpack to where the flavor sets no limit. max_files: members it may have.
    """

    max_gb = 100
    max_files = 1_000_000

    def make(self, spec: InstanceSpec, progress: Progress) -> Layout:
        """A new directory with the root. Raises ImageError, DiskError, UnsupportedError."""
        image = check_container(spec)
        layout = self.layout(spec.name)
        _make_directory(layout, spec)
        progress("downloading image")
        archive = layout.root_base
        self.images.provide(image, archive, progress)
        progress("unpacking image")
        bounds = Bounds(
            max_bytes=(spec.root_gb or self.max_gb) * _GIB, max_files=self.max_files, first_id=first_id(spec), ids=IDS
        )
        guard = lambda: progress("unpacking image")  # noqa: E731 - it is asked whether to go on
        rootfs.unpack(archive, layout.rootfs, bounds, name=image.name, guard=guard)
        archive.unlink()
        return layout

    def write_config_drive(self, spec: InstanceSpec) -> None:
        """Make the directory with what the container is told, or make it anew. Raises DiskError."""
        documents = configdrive.files(spec)
        layout = self.layout(spec.name)
        part, old = (layout.config.with_suffix(suffix) for suffix in (".part", ".old"))
        remove_tree(part)
        remove_tree(old)
        try:
            _write(part, documents, first_id(spec))
            if layout.config.exists():
                layout.config.rename(old)
            part.rename(layout.config)
        except OSError as exc:
            raise disk_error(exc, layout.config) from exc
        remove_tree(old)

    def remove_config_drive(self, name: str) -> None:
        """Have no such directory; succeed if there is none. Raises DiskError."""
        remove_tree(self.layout(name).config)

    def remove(self, name: str) -> None:
        """Remove a container's directory, once nothing is written there any more; succeed if it is gone."""
        deadline = time.monotonic() + _KEEPER_ENDS_S
        while self.is_kept(name) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        rootfs.remove(self.layout(name).directory)

    def path_of_strangers(self) -> list[Path]:
        """The directories that a container's root passes through on the way to its files."""
        real = self.instances_path.resolve()
        return [*reversed(real.parents), real]

    def keep_console(self, name: str, terminal: str) -> None:
        """Have what the container prints on a terminal of the host kept in its log, whoever ends."""
        layout = self.layout(name)
        words = [sys.executable, "-I", "-S", lxc_keeper.__file__, terminal, str(layout.console_log), str(_lock(layout))]
        try:
            run(words, timeout_s=_KEEPER_S)
        except ProcessError as exc:
            raise HypervisorError(f"guest {name}: its console cannot be kept: {exc}") from exc

    def is_kept(self, name: str) -> bool:
        """True while somebody keeps what the container prints; also when it has no directory."""
        try:
            with _lock(self.layout(name)).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


def check_container(spec: InstanceSpec) -> ImageSpec:
    """The image, when this can be a container at all. Raises ImageError, UnsupportedError."""
    image = spec.image
    if image is None:
        raise ImageError(f"guest {spec.name} has nothing to boot from: a container needs an image of format tar")
    if spec.kernel is not None or spec.ramdisk is not None:
        raise ImageError(f"image {image.name} has a kernel or ramdisk: a container runs on its host's kernel")
    if image.disk_format not in image_format.ARCHIVE_FORMATS:
        raise ImageError(f"image {image.name} is {image.disk_format}: a container's is a tar archive of its root")
    if spec.volumes or spec.ephemeral_gb or spec.swap_mb:
        raise UnsupportedError(f"guest {spec.name}: a container has no volumes, no ephemeral and no swap disk")
    if 0 < spec.root_gb < image.min_disk_gb:
        raise ImageError(f"image {image.name} needs {image.min_disk_gb} GiB, root_gb is {spec.root_gb}")
    return image


def _make_directory(layout: Layout, spec: InstanceSpec) -> None:
    try:
        layout.directory.mkdir(mode=0o700)
        layout.unfinished.touch()
        os.chown(layout.directory, -1, first_id(spec))
        layout.directory.chmod(0o710)  # the container's root passes through, and no other user of the host
    except OSError as exc:
        raise disk_error(exc, layout.directory) from exc


def _write(top: Path, documents: dict[str, bytes], group: int) -> None:
    """Files that root of the container may read."""
    top.mkdir(mode=0o700)
    for name, content in documents.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for path in (top, *top.rglob("*")):
        shutil.chown(path, 0, group)
        path.chmod(0o750 if path.is_dir() else 0o640)


def _lock(layout: Layout) -> Path:
    return layout.directory / "console.lock"
