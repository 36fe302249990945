"""Volumes of guests: one attachment has one device of one guest, in what runs and in what is defined."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

from lxml import etree

from virt import volumes
from virt.errors import (
    DriverTimeoutError,
    GuestNotFoundError,
    GuestStateError,
    HypervisorError,
    HypervisorUnreachableError,
    VirtError,
    VolumeError,
)
from virt.libvirt.devices import Devices, Element, View
from virt.libvirt.domains import Domains
from virt.libvirt.secrets import Secrets
from virt.libvirt.volume_disks import alias_of, volume_disk
from virt.spec import InstanceSpec, VolumeAttachment

LOG = logging.getLogger(__name__)


class Volumes:
    """Attaches and detaches on one libvirt. `cache`: QEMU's cache mode of volumes in files."""

    def __init__(self, domains: Domains, devices: Devices, secrets: Secrets, *, cache: str | None = None) -> None:
        self._domains, self._devices, self._secrets, self._cache = domains, devices, secrets, cache
        self._busy: set[int] = set()
        self._guard = threading.Lock()

    def attach(self, spec: InstanceSpec, volume: VolumeAttachment) -> None:
        """Plug a volume in; succeed if this attachment is in place.

        Raises VolumeError, with nothing left of the attempt, and GuestNotFoundError.
        """
        with self._alone(volume):
            view = self._devices.view(spec)
            if all(_find(devices, volume) is not None for devices in view.each()):
                return
            disk = volume_disk(spec, volume, self._cache)
            self._refuse_if_taken(spec, volume, disk.target, view)
            self._reach(spec, volume)
            try:
                self._devices.plug(spec, view, disk.xml(), lambda devices: _find(devices, volume))
            except (HypervisorUnreachableError, DriverTimeoutError):  # nobody knows whether it is plugged in
                raise
            except VirtError as exc:
                self._secrets.drop(spec, volume)
                if isinstance(exc, HypervisorError | GuestStateError):
                    raise VolumeError(f"volume {volume.volume_id}: {exc}") from exc
                raise
        LOG.info("guest %s: volume %d attached at %s", spec.name, volume.volume_id, volume.device)

    def detach(self, spec: InstanceSpec, volume: VolumeAttachment) -> None:
        """Plug exactly this attachment out; succeed if it, or the guest, is not there.

        Raises VolumeError when the guest does not let go.
        """
        try:
            view = self._devices.view(spec)
            plugged = any(_find(devices, volume) is not None for devices in view.each())
            reason = self._devices.unplug(spec, lambda devices: _find(devices, volume)) if plugged else None
            newer = any(_serial(disk) == volume.serial for devices in view.each() for disk in _others(devices, volume))
        except GuestNotFoundError:
            plugged, reason, newer = False, None, False
        if reason is not None:
            raise VolumeError(f"volume {volume.volume_id} stays with guest {spec.name}: {reason}")
        if not newer:
            self._secrets.drop(spec, volume)
        if plugged:
            LOG.info("guest %s: volume %d detached from %s", spec.name, volume.volume_id, volume.device)

    def prepare(self, spec: InstanceSpec) -> None:
        """Have every volume of a guest ready for its start, before anything of it is stopped or made.

        Raises VolumeError when one cannot be reached, or is another guest's.
        """
        if not spec.volumes:
            return
        others = self._domains.documents_of_others(spec)
        for volume in spec.volumes:
            _refuse_if_anothers(others, volume, volume_disk(spec, volume, self._cache).element())
            self._reach(spec, volume)

    def forget(self, spec: InstanceSpec) -> None:
        """Forget the secrets of a guest that is gone."""
        self._secrets.drop_all(spec)

    def _reach(self, spec: InstanceSpec, volume: VolumeAttachment) -> None:
        source = volumes.source_of(volume)
        volumes.check(volume, source)
        self._secrets.put(spec, volume, source)

    def _refuse_if_taken(self, spec: InstanceSpec, volume: VolumeAttachment, target: str, view: View) -> None:
        for disk in [disk for devices in view.each() for disk in _others(devices, volume)]:
            if _serial(disk) == volume.serial:
                raise VolumeError(f"volume {volume.volume_id}: guest {spec.name} has it at {_target(disk)} already")
            if _target(disk) == target:
                raise VolumeError(f"volume {volume.volume_id}: guest {spec.name} has another disk at {volume.device}")
        wanted = volume_disk(spec, volume, self._cache).element()
        _refuse_if_anothers(self._domains.documents_of_others(spec), volume, wanted)

    @contextlib.contextmanager
    def _alone(self, volume: VolumeAttachment) -> Iterator[None]:
        """Nobody else attaches this volume here meanwhile: two guests must not both find it free."""
        with self._guard:
            if volume.volume_id in self._busy:
                raise VolumeError(f"volume {volume.volume_id}: is being attached by another order")
            self._busy.add(volume.volume_id)
        try:
            yield
        finally:
            self._busy.discard(volume.volume_id)


def _refuse_if_anothers(others: list[tuple[str, str]], volume: VolumeAttachment, wanted: Element) -> None:
    for name, document in others:
        for disk in etree.fromstring(document).findall("devices/disk"):
            if _serial(disk) == volume.serial or _same_place(disk, wanted):
                raise VolumeError(f"volume {volume.volume_id}: guest {name} has it already")


def _find(devices: Element, volume: VolumeAttachment) -> Element | None:
    """The disk that is this very attachment."""
    return next((disk for disk in devices.findall("disk") if _alias(disk) == alias_of(volume)), None)


def _others(devices: Element, volume: VolumeAttachment) -> list[Element]:
    return [disk for disk in devices.findall("disk") if _alias(disk) != alias_of(volume)]


def _same_place(one: Element, other: Element) -> bool:
    """True when two disks are the same bytes: the same file, device, or name on the same servers."""
    return _place(one) == _place(other) is not None


def _place(disk: Element) -> tuple[object, ...] | None:
    source = disk.find("source")
    if source is None:
        return None
    facts = tuple(source.get(key) for key in ("file", "dev", "protocol", "name"))
    hosts = frozenset(tuple(host.get(key) for key in ("name", "port", "socket")) for host in source.findall("host"))
    return (*facts, hosts) if any(facts) else None


def _alias(disk: Element) -> str | None:
    alias = disk.find("alias")
    return None if alias is None else alias.get("name")


def _serial(disk: Element) -> str | None:
    text: str | None = disk.findtext("serial")
    return text


def _target(disk: Element) -> str:
    return str(disk.find("target").get("dev"))
