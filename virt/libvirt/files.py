"""Which guests have files on this host: those that are gone should have none, and those that are here all of theirs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from virt.errors import GuestExistsError
from virt.libvirt.build import CACHE, Builder
from virt.libvirt.domains import Domains
from virt.libvirt.layout import Layout
from virt.spec import InstanceSpec

_LARGEST_LOG = 8 * 1024**2  # virtlogd keeps 2 MiB a file by default


class Files:
    """Compares `instances_path` with guests."""

    def __init__(self, builder: Builder, domains: Domains) -> None:
        self._builder, self._domains = builder, domains

    def stray(self, known: Collection[str]) -> list[str]:
        """Names of guests that have a directory, and are neither `known` nor in libvirt."""
        paths = [path for path in self._builder.instances_path.iterdir() if Layout.is_name(path.name)]
        folders = [path.name for path in paths if path.is_dir()]
        unknown = {name.removesuffix(Layout.KEPT) for name in folders if name != CACHE} - set(known)
        if not unknown:
            return []
        return sorted(unknown - {fact.name for fact in self._domains.list_guests()})

    def remove_stray(self, name: str) -> None:
        """Remove the directories of a guest that `stray` named. Raises GuestExistsError, DiskError."""
        if any(fact.name == name for fact in self._domains.list_guests()):
            raise GuestExistsError(f"guest {name}: the hypervisor knows it")
        self._builder.remove(name)
        self._builder.remove(name + Layout.KEPT)

    def missing(self, specs: Sequence[InstanceSpec]) -> list[tuple[str, str]]:
        """What guests of this host lack, or have too much of, in words."""
        return [(spec.name, words) for spec in specs for words in _troubles(spec, self._builder.layout(spec.name))]


def _troubles(spec: InstanceSpec, layout: Layout) -> Iterator[str]:
    if not layout.directory.is_dir():
        yield "its directory is missing"
        return
    wanted = [
        (layout.root, spec.root_image is not None),
        (layout.ephemeral, spec.ephemeral_gb > 0),
        (layout.swap, spec.swap_mb > 0),
        (layout.kernel, spec.kernel is not None),
        (layout.ramdisk, spec.ramdisk is not None),
    ]
    yield from (f"its file {path.name} is missing" for path, is_wanted in wanted if is_wanted and not path.exists())
    if layout.console_log.exists() and layout.console_log.stat().st_size > _LARGEST_LOG:
        size_mb = layout.console_log.stat().st_size // 1024**2
        yield f'its console log has {size_mb} MiB: nobody rotates it; set stdio_handler = "logd" in qemu.conf'
