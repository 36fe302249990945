"""Interfaces plugged into guests and out, running or not."""

from __future__ import annotations

import time

from virt.errors import DriverTimeoutError, NetworkError
from virt.power_state import Power
from virt.spec import InstanceSpec, Vif
from virt.xenapi.errors import XapiError
from virt.xenapi.guests import Guest, Guests
from virt.xenapi.helper import HelperBase, Record
from virt.xenapi.networks import Networks
from virt.xenapi.session import Session
from virt.xenapi.wiring import Wiring

_POLL_S = 0.25
_DONE = {"DEVICE_ALREADY_ATTACHED", "DEVICE_ALREADY_DETACHED"}


class Nics(HelperBase):
    """Interfaces of one host's guests. unplug_s: seconds that a guest may take to let go of one."""

    def __init__(
        self, session: Session, guests: Guests, wiring: Wiring, networks: Networks, *, unplug_s: float = 60.0
    ) -> None:
        super().__init__(session)
        self._guests, self._wiring, self._networks, self._unplug_s = guests, wiring, networks, unplug_s

    def attach(self, spec: InstanceSpec, vif: Vif) -> None:
        """Plug it in; succeed if it is in place. On an error nothing of it is left."""
        guest = self._guests.find(spec)
        ref, record = self._mine(guest, vif)
        made = ""
        if not record:
            ref = made = self._wiring.add_vif(guest.ref, vif, self._networks.find(vif.network))
        if guest.power is Power.RUNNING and not record.get("currently_attached", False):
            try:
                self._do("VIF.plug", ref, wanted=True)
            except XapiError as exc:
                if made:
                    self.session.destroy("VIF", made)
                raise NetworkError(f"guest {spec.name}: interface {vif.mac}: {exc}") from exc

    def detach(self, spec: InstanceSpec, vif: Vif) -> None:
        """Unplug it and wait until the guest has let go; succeed if it is not there."""
        guest = self._guests.find(spec)
        ref, record = self._mine(guest, vif)
        if not record:
            return
        deadline = time.monotonic() + self._unplug_s
        while record["currently_attached"] and self._guests.again(guest).power.is_on:
            try:
                self._do("VIF.unplug", ref, wanted=False)
                break
            except XapiError as exc:
                if time.monotonic() >= deadline:
                    raise NetworkError(f"guest {spec.name} does not let go of interface {vif.mac}: {exc}") from exc
            time.sleep(_POLL_S)
        self.session.destroy("VIF", ref)

    def _mine(self, guest: Guest, vif: Vif) -> tuple[str, Record]:
        found = self._wiring.interfaces(guest.ref).items()
        return next(((ref, one) for ref, one in found if one["MAC"].lower() == vif.mac.lower()), ("", {}))

    def _do(self, method: str, ref: str, *, wanted: bool) -> None:
        try:
            self.call(method, ref)
        except XapiError as exc:
            if exc.code not in _DONE:
                raise
        except DriverTimeoutError:
            if self.call("VIF.get_currently_attached", ref) is not wanted:
                raise
