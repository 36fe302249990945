"""Make a guest, bring it to what its spec says, and remove it."""

from __future__ import annotations

import contextlib
import logging

from virt import configdrive
from virt.driver import Progress
from virt.errors import GuestExistsError, GuestNotFoundError, ImageError, VirtError, VolumeError
from virt.spec import InstanceSpec
from virt.xenapi import stamps
from virt.xenapi.disks import GIB, MIB, Disks, check_images
from virt.xenapi.errors import GoneError
from virt.xenapi.guests import Guest, Guests
from virt.xenapi.helper import HelperBase
from virt.xenapi.machines import Machines, firmware_of
from virt.xenapi.networks import Networks
from virt.xenapi.power import PowerSwitch
from virt.xenapi.session import Session
from virt.xenapi.stamps import Role, Stage
from virt.xenapi.volumes import Volumes, device_of
from virt.xenapi.wiring import Plug, Wiring

LOG = logging.getLogger(__name__)

CONFIG_DEVICE = "15"


class Builder(HelperBase):
    """Guests of one host, as wholes."""

    def __init__(
        self, session: Session, *, guests: Guests, machines: Machines, disks: Disks, wiring: Wiring, volumes: Volumes,
        power: PowerSwitch, networks: Networks, force_config_drive: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(session)
        self.guests, self.machines, self.disks, self.wiring = guests, machines, disks, wiring
        self.volumes, self.power, self.networks = volumes, power, networks
        self._force_config_drive = force_config_drive

    def spawn(self, spec: InstanceSpec, progress: Progress) -> None:
        """Make a guest of an image and start it. On an error nothing of it is left."""
        check_images(spec)
        firmware_of(spec)
        progress("looking for leftovers")
        self.refuse_if_there(spec)
        self.remove_all(spec)
        with contextlib.ExitStack() as undo:
            undo.callback(self.take_back, spec)
            self._make_disks(spec, progress)
            self.assemble(spec, progress)
            undo.pop_all()
        LOG.info("guest %s: started", spec.name)

    def assemble(self, spec: InstanceSpec, progress: Progress) -> None:
        """Make a VM around the disks that the guest has, and start it."""
        progress("making the VM")
        vm = self.machines.create(spec)
        progress("connecting disks and networks")
        self.wiring.vifs(vm, spec)
        self.put(vm, spec, self.plugs(spec))
        self.machines.finish(vm, spec)
        progress("starting")
        self.power.start(vm)
        progress("started")

    def restart(self, spec: InstanceSpec) -> None:
        """Pull the plug of a guest and start it by `spec`; nothing is stopped before all that it needs is there.

        Raises GuestNotFoundError.
        """
        guest = self.guests.find(spec)
        plugs = self.plugs(spec)
        self.power.stop(guest.ref)
        self.refresh(self.guests.again(guest), spec, plugs)
        self.power.start(guest.ref)

    def refresh(self, guest: Guest, spec: InstanceSpec, plugs: list[Plug]) -> None:
        """Bring a VM that is off to what `spec` says: size, disks, volumes, interfaces, config drive."""
        self.machines.fit(guest.ref, guest.record, spec)
        self.wiring.vifs(guest.ref, spec)
        self.put(guest.ref, spec, plugs)
        self.machines.finish(guest.ref, spec)

    def destroy(self, spec: InstanceSpec) -> None:
        """Remove the guest that is on this host, and everything that was made for it; succeed if there is nothing."""
        with contextlib.suppress(GuestNotFoundError):
            self.remove(self.guests.find(spec))
        self.remove_all(spec)

    def remove(self, guest: Guest) -> None:
        """Remove a VM of ours with its own disks."""
        own, repositories = self.own_disks(guest), self.volumes.repositories(guest)
        self.machines.remove(guest)
        for vdi in own:
            self.disks.remove(vdi)
        for sr in repositories:
            self.volumes.release(sr)

    def remove_all(self, spec: InstanceSpec) -> None:
        """Remove what is left of a guest that has no VM: half made ones, disks, connections to its volumes."""
        for guest in self.guests.staged(spec, Stage.UNFINISHED):
            self.remove(guest)
        self.disks.sweep_all(spec)
        for volume in spec.volumes:
            self.volumes.disconnect(volume)

    def take_back(self, spec: InstanceSpec) -> None:
        """Undo as far as it went."""
        try:
            self.destroy(spec)
        except VirtError as exc:
            LOG.warning("guest %s: what was made of it stays until it is deleted: %s", spec.name, exc)

    def own_disks(self, guest: Guest) -> list[str]:
        """The disks in a VM that were made for it, snapshots of them included; volumes are not."""
        found = []
        for vbd in self.wiring.vbds(guest.ref).values():
            with contextlib.suppress(GoneError):
                record = self.call("VDI.get_record", vbd["VDI"])
                if stamps.ROLE in record["other_config"] and self.guests.stamp.is_on(record["other_config"]):
                    found.append(vbd["VDI"])
        return found

    def refuse_if_there(self, spec: InstanceSpec) -> None:
        """Raise GuestExistsError when the guest, or another of its name, is on this host."""
        with contextlib.suppress(GuestNotFoundError):
            self.guests.named(spec.name)
            raise GuestExistsError(f"guest {spec.name}: exists")

    def own_plugs(self, spec: InstanceSpec) -> list[Plug]:
        """The guest's own disks and config drive, at their devices. Raises ImageError when its root disk is gone."""
        plugs: list[Plug] = []
        first = len(spec.root_volumes)
        for role in own_roles(spec):
            vdi = self.disks.the(spec, role)
            if vdi is None:
                raise ImageError(f"guest {spec.name}: its {role.value} disk is not in the pool")
            plugs.append(Plug(vdi=vdi, device=str(first + len(plugs))))
        return plugs

    def config_plug(self, spec: InstanceSpec) -> list[Plug]:
        """The config drive, when the guest is to have one."""
        if not (self._force_config_drive or configdrive.has_content(spec)):
            return []
        return [Plug(vdi=self.disks.config_drive(spec), device=CONFIG_DEVICE)]

    def put(self, vm: str, spec: InstanceSpec, plugs: list[Plug]) -> None:
        """Have these disks in a VM that is off, and remove config drives that are in it no more."""
        self.wiring.disks(vm, plugs)
        self.disks.sweep(spec, Role.CONFIG)

    def plugs(self, spec: InstanceSpec) -> list[Plug]:
        """Every disk, volume and config drive that the guest is to have, made and connected to this host.

        Raises ImageError, DiskError, VolumeError, and NetworkError when it would find no network.
        """
        firmware_of(spec)
        for vif in spec.vifs:
            self.networks.find(vif.network)
        own = [*self.own_plugs(spec), *self.config_plug(spec)]
        taken = {plug.device for plug in own}
        for volume in spec.volumes:
            if device_of(volume) in taken:
                raise VolumeError(f"volume {volume.volume_id}: guest {spec.name} has another disk at {volume.device}")
        return [*own, *self.volumes.plugs(spec)]

    def _make_disks(self, spec: InstanceSpec, progress: Progress) -> None:
        if spec.root_image is not None:
            self.disks.create_from_image(spec, Role.ROOT, spec.root_image, spec.root_gb * GIB, progress)
        self.make_more_disks(spec)

    def make_more_disks(self, spec: InstanceSpec) -> None:
        """Have the empty disks that the guest's size asks for; those that are there are left, and never shrink."""
        for role, size in ((Role.EPHEMERAL, spec.ephemeral_gb * GIB), (Role.SWAP, spec.swap_mb * MIB)):
            if size:
                vdi = self.disks.the(spec, role)
                if vdi is None:
                    self.disks.create(spec, role, size)
                else:
                    self.disks.grow(vdi, size)


def own_roles(spec: InstanceSpec) -> list[Role]:
    """The disks that a guest of this size has, in the order of their devices."""
    wanted = {
        Role.ROOT: spec.root_image is not None, Role.EPHEMERAL: spec.ephemeral_gb > 0, Role.SWAP: spec.swap_mb > 0,
    }  # fmt: skip
    return [role for role, is_there in wanted.items() if is_there]
