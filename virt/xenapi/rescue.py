"""Boot a guest from a rescue image with its own root disk beside it, and back.

It stays the same VM, with other disks. A rescue's disk is the mark of one that was begun, and what is at the VM's first
device tells whether it boots from it; so both ways can be gone again after a crash at any step.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import replace

from virt.driver import Progress
from virt.errors import VirtError
from virt.power_state import Power
from virt.spec import InstanceSpec
from virt.xenapi.build import Builder
from virt.xenapi.disks import check_images
from virt.xenapi.guests import Guest
from virt.xenapi.stamps import Role
from virt.xenapi.wiring import Plug

LOG = logging.getLogger(__name__)


class Rescuer:
    """Rescues the guests of one host."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder

    def rescue(self, spec: InstanceSpec, rescue: InstanceSpec, progress: Progress) -> None:
        """Stop the guest and start it from `rescue`'s image; on an error it is what it was.

        Raises GuestNotFoundError, ImageError.
        """
        builder = self._builder
        guest = builder.guests.find(spec)
        if self._boots_rescue(guest, spec):
            if guest.power is not Power.RUNNING:
                builder.power.stop(guest.ref)
                builder.power.start(guest.ref)
            return
        rescue = replace(rescue, volumes=())
        check_images(rescue)
        builder.disks.sweep(spec, Role.RESCUE)
        with ExitStack() as undo:
            undo.callback(self._forget, spec)
            image = rescue.image
            assert image is not None  # noqa: S101 - check_images said so
            vdi = builder.disks.create_from_image(spec, Role.RESCUE, image, 0, progress)
            progress("starting the rescue")
            plugs = self._plugs(spec, vdi)
            undo.callback(self._put_back, guest, spec)
            builder.power.stop(guest.ref)
            builder.put(guest.ref, spec, plugs)
            builder.power.start(guest.ref)
            undo.pop_all()
        LOG.info("guest %s: rescued", spec.name)

    def unrescue(self, spec: InstanceSpec) -> None:
        """Start the guest from its own disks and remove the rescue's; one that is not rescued is left as it is."""
        builder = self._builder
        guest = builder.guests.find(spec)
        begun = builder.disks.the(spec, Role.RESCUE) is not None
        if self._boots_rescue(guest, spec) or (begun and not guest.power.is_on):
            builder.restart(spec)
            LOG.info("guest %s: unrescued", spec.name)
        builder.disks.sweep(spec, Role.RESCUE)

    def _plugs(self, spec: InstanceSpec, rescue: str) -> list[Plug]:
        bare = replace(spec, ephemeral_gb=0, swap_mb=0, volumes=spec.root_volumes)
        own = [*self._builder.own_plugs(bare), *self._builder.volumes.plugs(bare)]
        beside = [replace(plug, device="1") for plug in own]
        return [Plug(vdi=rescue, device="0"), *beside, *self._builder.config_plug(spec)]

    def _boots_rescue(self, guest: Guest, spec: InstanceSpec) -> bool:
        rescue = self._builder.disks.find(spec, Role.RESCUE)
        vbds = self._builder.wiring.vbds(guest.ref).values()
        return any(vbd["userdevice"] == "0" and vbd["VDI"] in rescue for vbd in vbds)

    def _put_back(self, guest: Guest, spec: InstanceSpec) -> None:
        try:
            plugs = self._builder.plugs(spec)
            self._builder.power.stop(guest.ref)
            self._builder.refresh(self._builder.guests.again(guest), spec, plugs)
            if guest.power.is_on:
                self._builder.power.start(guest.ref)
        except VirtError as exc:
            LOG.error("guest %s: could not be rescued, nor started from its own disk again: %s", spec.name, exc)

    def _forget(self, spec: InstanceSpec) -> None:
        try:
            self._builder.disks.sweep(spec, Role.RESCUE)
        except VirtError as exc:
            LOG.warning("guest %s: the disk of its rescue stays until it is unrescued: %s", spec.name, exc)
