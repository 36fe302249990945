"""Make a guest's files, and remove them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from virt import configdrive, image_format
from virt.disk import Disks, remove_file, remove_tree
from virt.driver import Progress
from virt.errors import DiskError, ImageError, disk_error
from virt.images import ImageCache
from virt.libvirt.layout import Layout
from virt.spec import ImageSpec, InstanceSpec

_GIB, _MIB = 1024**3, 1024**2
CACHE = "_base"


class Builder:
    """Guests' directories below `instances_path`."""

    def __init__(
        self, instances_path: Path, images: ImageCache, disks: Disks, *, cow: bool = True, raw: bool = False
    ) -> None:
        """cow: root disks are overlays on the image. raw: they are raw copies, for a hypervisor that knows no qcow2."""
        self.instances_path, self.images, self._disks = instances_path, images, disks
        self._cow, self._into = cow and not raw, "raw" if raw else "qcow2"

    def prepare(self) -> None:
        """Have the directory of directories. Raises DiskError."""
        try:
            self.instances_path.mkdir(mode=0o711, parents=True, exist_ok=True)
        except OSError as exc:
            raise DiskError(f"{self.instances_path}: {exc.strerror}") from exc

    @property
    def disks(self) -> Disks:
        """What makes and changes disk files."""
        return self._disks

    def make_directory(self, layout: Layout) -> None:
        """A guest's directory, with the mark of one that is being made. Raises DiskError."""
        _make_directory(layout)

    def layout(self, name: str) -> Layout:
        """Where the files of the guest called `name` are."""
        return Layout.of(self.instances_path, name)

    def make(self, spec: InstanceSpec, progress: Progress) -> Layout:
        """Every file the guest needs, in a new directory. Raises ImageError, DiskError."""
        check_images(spec)
        layout = self.layout(spec.name)
        _make_directory(layout)
        progress("downloading image")
        size = self._fetch(spec, layout, progress)
        progress("making disks")
        if spec.root_image is not None:
            self._make_root(spec.root_image, layout, max(size, spec.root_gb * _GIB))
        if spec.ephemeral_gb:
            self._disks.create_empty(layout.ephemeral, spec.ephemeral_gb * _GIB)
        if spec.swap_mb:
            self._disks.create_swap(layout.swap, spec.swap_mb * _MIB)
        return layout

    def write_config_drive(self, spec: InstanceSpec) -> None:
        """Make the config drive, or make it anew; a guest that has the old one in use keeps it. Raises DiskError."""
        data, path = configdrive.image(spec), self.layout(spec.name).config_drive
        part = path.with_name(path.name + ".part")
        try:
            part.unlink(missing_ok=True)
            with os.fdopen(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600), "wb") as file:
                file.write(data)
            part.replace(path)
        except OSError as exc:
            raise disk_error(exc, path) from exc

    def remove_config_drive(self, name: str) -> None:
        """Have no config drive; succeed if there is none."""
        self.layout(name).config_drive.unlink(missing_ok=True)

    def make_rescue(self, name: str, rescue: InstanceSpec, progress: Progress) -> None:
        """What a rescue boots, of `rescue`'s images, beside the guest's own files. Raises ImageError, DiskError."""
        check_images(rescue)
        layout = self.layout(name).rescue
        size = self._fetch(rescue, layout, progress)
        progress("making disks")
        if rescue.image is not None:
            layout.root.unlink(missing_ok=True)
            self._make_root(rescue.image, layout, size)

    def has_rescue(self, name: str) -> bool:
        """True when there are files of a rescue, finished or not."""
        return any(path.exists() for path in self.layout(name).rescue.bootable)

    def remove_rescue(self, name: str) -> None:
        """Remove what a rescue boots; succeed if it is gone."""
        for path in self.layout(name).rescue.bootable:
            remove_file(path)

    def copy_root(self, name: str, path: Path, guard: Callable[[], None]) -> None:
        """The root disk of a guest that is off, with all that it is an overlay of, as a qcow2 at `path`."""
        layout = self.layout(name)
        self._disks.flatten(layout.root, layout.root_base, path, guard)

    def is_half_made(self, name: str) -> bool:
        """True when the guest of this name was being made when its maker died."""
        return self.layout(name).unfinished.exists()

    def finish(self, name: str) -> None:
        """From now on the guest is worth keeping."""
        self.layout(name).unfinished.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Remove a guest's directory; succeed if it is gone."""
        remove_tree(self.layout(name).directory)

    def _fetch(self, spec: InstanceSpec, layout: Layout, progress: Progress) -> int:
        """Kernel, ramdisk and root image, as links in the guest's directory; the root image's virtual size."""
        for image, link in ((spec.kernel, layout.kernel), (spec.ramdisk, layout.ramdisk)):
            if image is not None:
                self.images.provide(image, link, progress)
        if spec.root_image is None:
            return 0
        size = self.images.provide(spec.root_image, layout.root_base, progress)
        image_format.refuse_if_larger(size, spec.root_gb, spec.root_image.name, largest_gb=self.images.largest_gb)
        return size

    def _make_root(self, image: ImageSpec, layout: Layout, size: int) -> None:
        if self._cow:
            self._disks.create_overlay(layout.root, layout.root_base, image.disk_format, size)
        else:
            self._disks.copy(layout.root_base, image.disk_format, layout.root, size, self._into)
            layout.root_base.unlink()


def check_images(spec: InstanceSpec) -> None:
    """Raise ImageError unless the guest's images are of the right kinds and its root disk is large enough."""
    image = spec.root_image
    if image is None and spec.kernel is None and not spec.root_volumes:
        raise ImageError(f"guest {spec.name} has nothing to boot from")
    _check_kind(image, image_format.DISK_FORMATS, "a disk")
    _check_kind(spec.kernel, {"aki"}, "a kernel")
    _check_kind(spec.ramdisk, {"ari"}, "a ramdisk")
    if image is not None and 0 < spec.root_gb < image.min_disk_gb:
        raise ImageError(f"image {image.name} needs {image.min_disk_gb} GiB, root_gb is {spec.root_gb}")


def _check_kind(image: ImageSpec | None, formats: frozenset[str] | set[str], what: str) -> None:
    if image is not None and image.disk_format not in formats:
        raise ImageError(f"image {image.name} is {image.disk_format}, not {what}")


def _make_directory(layout: Layout) -> None:
    try:
        layout.directory.mkdir(mode=0o711)  # the hypervisor's user passes through; only root looks around
        layout.unfinished.touch()
    except OSError as exc:
        raise disk_error(exc, layout.directory) from exc
