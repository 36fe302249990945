"""The part of the driver that looks after the host: events, image cache, left-over files."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from virt.driver import AuditsFiles, CachesImages, EmitsEvents, Told
from virt.libvirt.build import Builder
from virt.libvirt.domains import Domains
from virt.libvirt.events import Watch
from virt.libvirt.files import Files
from virt.libvirt.host import Host
from virt.spec import InstanceSpec


class Upkeep(EmitsEvents, CachesImages, AuditsFiles):
    """A base of the drivers."""

    _builder: Builder

    def _look_after(self, host: Host, domains: Domains, builder: Builder) -> None:
        self._watch, self._files = Watch(host), Files(builder, domains)

    def watch(self, told: Told) -> None:
        self._watch.renew(told)

    def evict_images(self, unused_for_s: float) -> Sequence[str]:
        return self._builder.images.evict(unused_for_s)

    def stray_files(self, known: Collection[str]) -> Sequence[str]:
        return self._files.stray(known)

    def missing_files(self, specs: Sequence[InstanceSpec]) -> Sequence[tuple[str, str]]:
        return self._files.missing(specs)

    def remove_stray_files(self, name: str) -> None:
        self._files.remove_stray(name)

    def _look_away(self) -> None:
        self._watch.close()
