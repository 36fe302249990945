"""Volumes and network interfaces of guests."""

from __future__ import annotations

from virt.errors import GuestNotFoundError, NetworkError, VolumeError
from virt.fake.hypervisor import FakeHypervisor
from virt.fake.records import Footprint
from virt.power_state import Power
from virt.spec import InstanceSpec, Vif, VolumeAttachment


def attach_volume(host: FakeHypervisor, spec: InstanceSpec, volume: VolumeAttachment) -> None:
    """Plug a volume in; VolumeError when its device or the volume itself is taken."""
    with host.changing(spec.name) as (held, _):
        plug = (volume.volume_id, volume.attachment_id)
        if held.volumes.get(volume.device) == plug:
            return
        if volume.device in held.volumes:
            raise VolumeError(f"guest {spec.name} has volume {held.volumes[volume.device][0]} at {volume.device}")
        if any(volume_id == volume.volume_id for volume_id, _ in held.volumes.values()):
            raise VolumeError(f"guest {spec.name} has volume {volume.volume_id} at another device")
        host.commons.claim_volume(volume.volume_id, spec.uuid)
        held.volumes[volume.device] = plug


def detach_volume(host: FakeHypervisor, spec: InstanceSpec, volume: VolumeAttachment) -> None:
    """Unplug exactly this attachment; VolumeError when a running guest will not let go."""
    plug = (volume.volume_id, volume.attachment_id)
    try:
        with host.changing(spec.name) as (held, domain):
            device = next((device for device, found in held.volumes.items() if found == plug), None)
            if device is None:
                return
            if domain.power.is_on and (domain.power is Power.PAUSED or not domain.obeys):
                raise VolumeError(f"guest {spec.name} does not let go of volume {volume.volume_id} at {device}")
            del held.volumes[device]
            host.commons.release_volume(volume.volume_id, spec.uuid)
    except GuestNotFoundError:
        return


def match_volumes(host: FakeHypervisor, held: Footprint, spec: InstanceSpec) -> None:
    """Make the volumes those of `spec`; VolumeError, with nothing more held than before, when one is taken."""
    wanted = {volume.device: (volume.volume_id, volume.attachment_id) for volume in spec.volumes}
    before = {volume_id for volume_id, _ in held.volumes.values()}
    now = {volume_id for volume_id, _ in wanted.values()}
    claimed: list[int] = []
    try:
        for volume_id in now - before:
            host.commons.claim_volume(volume_id, spec.uuid)
            claimed.append(volume_id)
    except VolumeError:
        for volume_id in claimed:
            host.commons.release_volume(volume_id, spec.uuid)
        raise
    for volume_id in before - now:
        host.commons.release_volume(volume_id, spec.uuid)
    held.volumes = wanted


def release_volumes(host: FakeHypervisor, held: Footprint, uuid: str) -> None:
    """Unplug every volume."""
    for volume_id, _ in held.volumes.values():
        host.commons.release_volume(volume_id, uuid)
    held.volumes = {}


def attach_nic(host: FakeHypervisor, spec: InstanceSpec, vif: Vif) -> None:
    """Plug an interface in; NetworkError when it would join no bridge."""
    with host.changing(spec.name) as (held, _):
        if not vif.bridge:
            raise NetworkError(f"cannot plug {vif.mac} into guest {spec.name}: its network has no bridge")
        held.taps[vif.mac] = vif.dev


def detach_nic(host: FakeHypervisor, spec: InstanceSpec, vif: Vif) -> None:
    """Unplug an interface; succeed if it is not there."""
    with host.changing(spec.name) as (held, _):
        held.taps.pop(vif.mac, None)
