"""Disks of a guest that gets another size, here or on another host: set aside, copied, taken over, put back.

What a revert needs lies in `<name>_resize`, beside the directory of the guest. A copy is complete when `disk_info` is
written; until the guest has started from it, it carries the mark of one that is being made.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from virt.disk import Disks, remove_file, remove_tree
from virt.driver import Progress
from virt.errors import DiskError, GuestNotFoundError, VirtError
from virt.libvirt.build import Builder
from virt.libvirt.domains import Domains
from virt.libvirt.layout import Layout
from virt.libvirt.peer import Folder, Peers
from virt.spec import InstanceSpec

LOG = logging.getLogger(__name__)
_GIB, _MIB = 1024**3, 1024**2
_INFO, _MARK = "disk_info", "mark"


class Resizer:
    """Moves guests' files. `is_here` tells whether an address is this very host's."""

    def __init__(
        self, domains: Domains, builder: Builder, disks: Disks, peers: Peers, is_here: Callable[[str], bool]
    ) -> None:
        self._domains, self._builder, self._disks = domains, builder, disks
        self._peers, self._is_here = peers, is_here

    def hand_over(self, spec: InstanceSpec, dest: str, progress: Progress) -> str:
        """Stop a guest, set its files aside and have copies where `dest` looks for them; disk_info.

        Raises GuestNotFoundError, DiskError, HypervisorError.
        """
        kept = self._kept(spec)
        info = kept.directory / _INFO
        if info.exists():
            return info.read_text()
        self._set_aside(spec, kept, progress)
        with ExitStack() as undo:
            sizes = self._copy_here(spec, kept, progress, undo) if self._is_here(dest) else None
            if sizes is None:
                sizes = self._copy_there(spec, kept, dest, progress, undo)
            text = json.dumps({"files": sizes}, sort_keys=True)
            part = info.with_name(info.name + ".part")
            part.write_text(text)
            part.replace(info)
            undo.pop_all()
        remove_file(_outgoing(kept))
        return text

    def take_over(self, spec: InstanceSpec, disk_info: str, progress: Progress) -> None:
        """Make the copies this guest's own, at its size. Raises DiskError."""
        layout, sizes = self._builder.layout(spec.name), _sizes(disk_info)
        for name, size in sizes.items():
            path = layout.directory / name
            found = path.stat().st_size if path.exists() else None
            if found is None or (found < size and path != layout.swap):
                raise DiskError(f"guest {spec.name}: {path} has {found} bytes, {size} were sent")
        progress("growing disks")
        self._grow(spec, layout)

    def put_back(self, spec: InstanceSpec) -> None:
        """Have the files that were set aside where they were; nothing when they are. Raises GuestNotFoundError."""
        kept, layout = self._kept(spec), self._builder.layout(spec.name)
        if kept.directory.exists():
            self._domains.remove(spec)
            remove_tree(layout.directory)
            kept.directory.rename(layout.directory)
        elif not layout.directory.exists():
            raise GuestNotFoundError(f"guest {spec.name}: is not here, and nothing of it was kept")
        outgoing = _outgoing(layout)
        for name in (_INFO, _INFO + ".part", _MARK, outgoing.name, outgoing.with_suffix(".part").name):
            remove_file(layout.directory / name)

    def forget(self, spec: InstanceSpec) -> None:
        """Remove what a revert would need; succeed if it is gone."""
        remove_tree(self._kept(spec).directory)

    def _kept(self, spec: InstanceSpec) -> Layout:
        return self._builder.layout(spec.name + Layout.KEPT)

    def _set_aside(self, spec: InstanceSpec, kept: Layout, progress: Progress) -> None:
        """In this order, whatever ends it: stopped, its root disk copied, set aside, unknown to libvirt.

        The copy needs no base any more, of which an overlay knows only the old place.
        """
        layout = self._builder.layout(spec.name)
        if not kept.directory.exists():
            self._domains.stop(spec)
            if layout.root.exists():
                progress("copying disk")
                part = _outgoing(layout).with_suffix(".part")
                remove_file(part)
                self._disks.flatten(layout.root, layout.root_base, part, lambda: progress("copying disk"))
                part.replace(_outgoing(layout))
            layout.directory.rename(kept.directory)
        elif layout.directory.exists():
            if not layout.unfinished.exists():
                raise DiskError(f"guest {spec.name}: {kept.directory} is there already, of another resize")
            remove_tree(layout.directory)
        self._domains.remove(spec)

    def _copy_here(self, spec: InstanceSpec, kept: Layout, progress: Progress, undo: ExitStack) -> dict[str, int]:
        """Copies in this host's own directory, or in one that another host sees as its own."""
        layout = self._builder.layout(spec.name)
        undo.callback(remove_tree, layout.directory)
        self._builder.make_directory(layout)
        for name, path in _plain_files(kept).items():
            progress(f"copying {name}")
            shutil.copyfile(path, layout.directory / name)
        if _outgoing(kept).exists():
            os.link(_outgoing(kept), layout.root)
        return _sizes_in(layout)

    def _copy_there(
        self, spec: InstanceSpec, kept: Layout, dest: str, progress: Progress, undo: ExitStack
    ) -> dict[str, int]:
        layout = self._builder.layout(spec.name)
        peer = self._peers.reach(dest)
        try:
            undo.callback(remove_tree, layout.directory)
            self._builder.make_directory(layout)
            folder = peer.folder(layout.directory)
            if sees_ours(folder, layout):
                folder.close()
                remove_tree(layout.directory)
                return self._copy_here(spec, kept, progress, undo)
            remove_tree(layout.directory)
            undo.callback(_drop, folder)
            folder.clear()
            sizes = self._send(kept, folder, progress)
            folder.close()
            return sizes
        finally:
            peer.close()

    def _send(self, kept: Layout, folder: Folder, progress: Progress) -> dict[str, int]:
        files = _plain_files(kept)
        mark = kept.directory / _MARK
        mark.write_text("being made\n")
        folder.put(mark, kept.unfinished.name, progress)
        mark.unlink()
        if _outgoing(kept).exists():
            files[kept.root.name] = _outgoing(kept)
        for name, path in files.items():
            folder.put(path, name, progress)
        return {name: path.stat().st_size for name, path in files.items()}

    def _grow(self, spec: InstanceSpec, layout: Layout) -> None:
        if layout.root.exists():
            size = self._disks.virtual_size(layout.root, "qcow2")
            if 0 < spec.root_gb * _GIB < size:
                raise DiskError(f"guest {spec.name}: a root disk of {size // _MIB} MiB does not fit {spec.root_gb} GiB")
            self._disks.grow(layout.root, "qcow2", spec.root_gb * _GIB)
        if spec.ephemeral_gb and not layout.ephemeral.exists():
            self._disks.create_empty(layout.ephemeral, spec.ephemeral_gb * _GIB)
        elif spec.ephemeral_gb:
            self._disks.grow(layout.ephemeral, "raw", spec.ephemeral_gb * _GIB)
        if spec.swap_mb and (not layout.swap.exists() or layout.swap.stat().st_size != spec.swap_mb * _MIB):
            remove_file(layout.swap)
            self._disks.create_swap(layout.swap, spec.swap_mb * _MIB)


def _plain_files(kept: Layout) -> dict[str, Path]:
    """Files that are copied as they are, by name: all that a guest has besides its root disk."""
    every = (kept.ephemeral, kept.swap, kept.kernel, kept.ramdisk, kept.nvram)
    return {path.name: path for path in every if path.exists()}


def _outgoing(kept: Layout) -> Path:
    return kept.directory / "disk.outgoing"


def _sizes_in(layout: Layout) -> dict[str, int]:
    files = {**_plain_files(layout), **({layout.root.name: layout.root} if layout.root.exists() else {})}
    return {name: path.stat().st_size for name, path in files.items()}


def _sizes(disk_info: str) -> Mapping[str, int]:
    try:
        return {str(name): int(size) for name, size in json.loads(disk_info)["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise DiskError(f"disk_info is not what migrate_disk_and_power_off returned: {exc!r}") from exc


def _drop(folder: Folder) -> None:
    with suppress(VirtError):  # what was wrong is being raised already
        folder.remove_all()


def sees_ours(folder: Folder, layout: Layout) -> bool:
    """True when a file that is made in this host's directory shows in the other's: they are one."""
    probe = layout.directory / f"probe-{secrets.token_hex(8)}"
    probe.touch()
    try:
        return folder.sees(probe.name)
    finally:
        remove_file(probe)
