"""iSCSI volumes of guests: each is a storage repository of its own, with the one LUN as its disk.

The repository has a uuid that follows from the volume's id, so every host finds the same one: each connects itself to
it, and the last to leave forgets it. What is plugged into a guest carries the attachment's id, so that an older order
never takes a newer attachment.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator

from virt import volumes
from virt.errors import (
    DriverTimeoutError,
    GuestNotFoundError,
    HypervisorUnreachableError,
    VirtError,
    VolumeError,
)
from virt.power_state import Power
from virt.spec import InstanceSpec, VolumeAttachment
from virt.xenapi import stamps
from virt.xenapi.errors import GoneError, XapiError
from virt.xenapi.guests import Guest, Guests
from virt.xenapi.helper import HelperBase, Record
from virt.xenapi.pool import Pool
from virt.xenapi.session import Session
from virt.xenapi.wiring import Plug, Wiring

LOG = logging.getLogger(__name__)

_POLL_S = 0.25
_HIGHEST_DEVICE = 254


class Volumes(HelperBase):
    """Attaches and detaches on one host. unplug_s: seconds that a guest may take to let go."""

    def __init__(self, session: Session, guests: Guests, pool: Pool, wiring: Wiring, *, unplug_s: float = 60.0) -> None:
        super().__init__(session)
        self._guests, self._pool, self._wiring, self._unplug_s = guests, pool, wiring, unplug_s
        self._one_at_a_time = threading.Lock()

    def attach(self, spec: InstanceSpec, volume: VolumeAttachment) -> None:
        """Plug a volume in; succeed if this attachment is in place.

        Raises VolumeError, with nothing left of the attempt, and GuestNotFoundError.
        """
        guest = self._guests.find(spec)
        device = device_of(volume)
        with self._one_at_a_time, _told_of(volume):
            vbd, record = self._mine(guest, volume)
            with contextlib.ExitStack() as undo:
                if not record:
                    self._refuse_if_taken(spec, guest, volume, device)
                    undo.callback(self._give_up, volume)
                    vdi = self.connect(volume)
                    undo.callback(self._take_back, guest, volume)
                    vbd = self._wiring.plug(guest.ref, self.plug(volume, vdi))
                if guest.power is Power.RUNNING and not record.get("currently_attached", False):
                    self._insert(vbd)
                undo.pop_all()
        LOG.info("guest %s: volume %d attached at %s", spec.name, volume.volume_id, volume.device)

    def detach(self, spec: InstanceSpec, volume: VolumeAttachment) -> None:
        """Plug exactly this attachment out; succeed if it, or the guest, is not there. Raises VolumeError."""
        with self._one_at_a_time, _told_of(volume):
            with contextlib.suppress(GuestNotFoundError):
                guest = self._guests.find(spec)
                vbd, record = self._mine(guest, volume)
                if record:
                    self._pull_out(spec, vbd, record, volume)
                    LOG.info("guest %s: volume %d detached from %s", spec.name, volume.volume_id, volume.device)
            self.disconnect(volume)

    def plugs(self, spec: InstanceSpec) -> list[Plug]:
        """Every volume of a guest that is to start, connected to this host. Raises VolumeError."""
        found: list[Plug] = []
        for volume in spec.volumes:
            with _told_of(volume):
                if device_of(volume) in {plug.device for plug in found}:
                    raise VolumeError(f"volume {volume.volume_id}: guest {spec.name} has another at {volume.device}")
                found.append(self.plug(volume, self.connect(volume)))
        return found

    def plug(self, volume: VolumeAttachment, vdi: str) -> Plug:
        """Where in its guest a volume belongs."""
        mark = {stamps.ATTACHMENT: str(volume.attachment_id), stamps.VOLUME: str(volume.volume_id)}
        return Plug(vdi=vdi, device=device_of(volume), mark=mark)

    def connect(self, volume: VolumeAttachment) -> str:
        """Have this host connected to a volume; its VDI. Raises VolumeError."""
        source = volumes.source_of(volume)
        if source.protocol != "iscsi":
            raise VolumeError(
                f"volume {volume.volume_id}: the xenapi driver attaches iscsi volumes, not {source.protocol}"
            )
        target, _, lun = source.name.partition("/")
        endpoint = source.endpoints[0]
        config = {"target": endpoint.host, "port": str(endpoint.port), "targetIQN": target, "LUNid": lun}
        if source.auth is not None:
            config |= {"chapuser": source.auth.user, "chappassword": source.auth.secret}
        sr = self._repository(volume)
        pbds = {ref: pbd for ref, pbd in self._pool.pbds(sr).items() if pbd["host"] == self._guests.host}
        for ref, pbd in list(pbds.items()):
            if not pbd["currently_attached"]:  # its portal or password may be old, and xapi hides the latter
                self.session.destroy("PBD", ref)
                del pbds[ref]
        self.call("PBD.plug", next(iter(pbds), None) or self._new_connection(sr, config))
        return self._disk(sr, volume, lun)

    def disconnect(self, volume: VolumeAttachment) -> None:
        """Have this host not connected to a volume, unless a guest has it; succeed if it is not."""
        sr = self._known(volume)
        if sr is not None:
            self.release(sr)

    def repositories(self, guest: Guest) -> set[str]:
        """The repositories of the volumes that are plugged into a guest."""
        vbds = self._wiring.vbds(guest.ref).values()
        return {str(self.call("VDI.get_SR", vbd["VDI"])) for vbd in vbds if stamps.VOLUME in vbd["other_config"]}

    def release(self, sr: str) -> None:
        """Have this host not connected to a volume's repository, unless a guest has it."""
        if any(self._is_held_here(vbd) for vdi in self.call("SR.get_VDIs", sr) for vbd in self._vbds_of(vdi)):
            return
        with contextlib.suppress(GoneError):
            for ref, pbd in self._pool.pbds(sr).items():
                if pbd["host"] == self._guests.host:
                    if pbd["currently_attached"]:
                        self.call("PBD.unplug", ref)
                    self.session.destroy("PBD", ref)
            if not self.call("SR.get_PBDs", sr):
                self.call("SR.forget", sr)

    def _mine(self, guest: Guest, volume: VolumeAttachment) -> tuple[str, Record]:
        """The VBD that is this very attachment; an empty record when there is none."""
        for ref, vbd in self._wiring.vbds(guest.ref).items():
            if vbd["other_config"].get(stamps.ATTACHMENT) == str(volume.attachment_id):
                return ref, vbd
        return "", {}

    def _refuse_if_taken(self, spec: InstanceSpec, guest: Guest, volume: VolumeAttachment, device: str) -> None:
        for vbd in self._wiring.vbds(guest.ref).values():
            if vbd["other_config"].get(stamps.VOLUME) == str(volume.volume_id):
                raise VolumeError(f"volume {volume.volume_id}: guest {spec.name} has it at another device already")
            if vbd["userdevice"] == device:
                raise VolumeError(f"volume {volume.volume_id}: guest {spec.name} has another disk at {volume.device}")
        sr = self._known(volume)
        holders = [vbd for vdi in self.call("SR.get_VDIs", sr) for vbd in self._vbds_of(vdi)] if sr else []
        if holders:
            raise VolumeError(f"volume {volume.volume_id}: another guest has it already")

    def _insert(self, vbd: str) -> None:
        try:
            self.call("VBD.plug", vbd)
        except XapiError as exc:
            if exc.code != "DEVICE_ALREADY_ATTACHED":
                raise
        except DriverTimeoutError:
            if not self.call("VBD.get_currently_attached", vbd):
                raise

    def _pull_out(self, spec: InstanceSpec, vbd: str, record: Record, volume: VolumeAttachment) -> None:
        """Take a VBD out of a guest; ask it again and again, since one that is booting is deaf."""
        deadline, attached = time.monotonic() + self._unplug_s, bool(record["currently_attached"])
        while attached and self._guests.find(spec).power.is_on:
            try:
                self.call("VBD.unplug", vbd)
                break
            except XapiError as exc:
                if exc.code == "DEVICE_ALREADY_DETACHED":
                    break
                reason = str(exc)
            except DriverTimeoutError as exc:
                reason, attached = str(exc), bool(self.call("VBD.get_currently_attached", vbd))
            if attached and time.monotonic() >= deadline:
                raise VolumeError(f"guest {spec.name} does not let go of volume {volume.volume_id}: {reason}")
            time.sleep(_POLL_S)
        self.session.destroy("VBD", vbd)

    def _repository(self, volume: VolumeAttachment) -> str:
        wanted = stamps.volume_uuid(self._guests.stamp.cluster, volume.volume_id)
        known = self._known(volume)
        if known is not None:
            return known
        name, about = f"volume-{volume.volume_id:08x}", f"volume of {self._guests.stamp.cluster}"
        return self.make(
            lambda: self._known(volume), "SR.introduce", wanted, name, about, "iscsi", "user", True, {}
        )  # fmt: skip

    def _new_connection(self, sr: str, config: dict[str, str]) -> str:
        def find() -> str | None:
            return next((ref for ref, pbd in self._pool.pbds(sr).items() if pbd["host"] == self._guests.host), None)

        record = {"host": self._guests.host, "SR": sr, "device_config": config, "other_config": {}}
        return self.make(find, "PBD.create", record)

    def _known(self, volume: VolumeAttachment) -> str | None:
        try:
            return str(self.call("SR.get_by_uuid", stamps.volume_uuid(self._guests.stamp.cluster, volume.volume_id)))
        except GoneError:
            return None

    def _disk(self, sr: str, volume: VolumeAttachment, lun: str) -> str:
        """The VDI that a LUN is; it is looked for anew when the repository does not show it yet."""
        for look_again in (True, False):
            found = {ref: self.call("VDI.get_sm_config", ref) for ref in self.call("SR.get_VDIs", sr)}
            here = [ref for ref, facts in found.items() if facts.get("LUNid", lun) == lun]
            if len(here) == 1:
                return str(here[0])
            if look_again:
                self.run("SR.scan", sr, timeout_s=self._unplug_s)
        raise VolumeError(f"volume {volume.volume_id}: its target shows {len(here)} disks as LUN {lun}")

    def _vbds_of(self, vdi: str) -> list[Record]:
        try:
            return [self.call("VBD.get_record", vbd) for vbd in self.call("VDI.get_VBDs", vdi)]
        except GoneError:
            return []

    def _is_held_here(self, vbd: Record) -> bool:
        try:
            return self._guests.is_here(self.call("VM.get_record", vbd["VM"]))
        except GoneError:
            return False

    def _take_back(self, guest: Guest, volume: VolumeAttachment) -> None:
        with _warned(volume):
            vbd, record = self._mine(guest, volume)
            if record:
                self.session.destroy("VBD", vbd)

    def _give_up(self, volume: VolumeAttachment) -> None:
        with _warned(volume):
            self.disconnect(volume)


def device_of(volume: VolumeAttachment) -> str:
    """xapi's number of a volume's device: /dev/vdb is 1. Raises VolumeError."""
    letters = volumes.target_of(volume).removeprefix("vd")
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - ord("a") + 1
    if number - 1 > _HIGHEST_DEVICE:
        raise VolumeError(f"volume {volume.volume_id}: xapi has no device {volume.device}")
    return str(number - 1)


@contextlib.contextmanager
def _told_of(volume: VolumeAttachment) -> Iterator[None]:
    """Say which volume it is that xapi has something against, and never its secret."""
    secret = (volumes.source_of(volume).auth or volumes.Auth(user="", secret="")).secret
    try:
        yield
    except (VolumeError, GuestNotFoundError, HypervisorUnreachableError, DriverTimeoutError):
        raise
    except XapiError as exc:
        reason = str(exc).replace(secret, "***") if secret else str(exc)
        raise VolumeError(f"volume {volume.volume_id}: {reason}") from None if secret else exc


@contextlib.contextmanager
def _warned(volume: VolumeAttachment) -> Iterator[None]:
    try:
        yield
    except VirtError as exc:
        LOG.warning("volume %d: what was made of its attachment stays until it is detached: %s", volume.volume_id, exc)
