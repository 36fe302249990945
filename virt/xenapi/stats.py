"""What xapi measures of guests: the values of its data sources, which are rates and levels, not counters."""

from __future__ import annotations

import math

from virt.errors import GuestStateError
from virt.power_state import Power
from virt.spec import InstanceSpec
from virt.xenapi.guests import Guests
from virt.xenapi.helper import HelperBase
from virt.xenapi.session import Session
from virt.xenapi.wiring import Wiring


class Stats(HelperBase):
    """Reads what is measured of one host's guests. A disk's id is its device there, an interface's its number."""

    def __init__(self, session: Session, guests: Guests, wiring: Wiring) -> None:
        super().__init__(session)
        self._guests, self._wiring = guests, wiring

    def diagnostics(self, spec: InstanceSpec) -> dict[str, int]:
        """Every data source by xapi's name: bytes, KiB and bytes a second as they are, fractions in percent."""
        guest = self._guests.find(spec)
        if guest.power is not Power.RUNNING:
            raise GuestStateError(f"guest {spec.name}: is {guest.power.name}, so nothing is measured")
        sources = self.call("VM.get_data_sources", guest.ref)
        return {
            source["name_label"]: _whole(source["value"], source["units"])
            for source in sources
            if math.isfinite(source["value"])  # xapi says nan of what it has not measured yet
        }

    def disks(self, name: str) -> list[str]:
        """The devices of a guest's disks."""
        vbds = self._wiring.vbds(self._guests.named(name).ref).values()
        return sorted(vbd["device"] or vbd["userdevice"] for vbd in vbds)

    def interfaces(self, name: str) -> list[str]:
        """The numbers of a guest's interfaces."""
        return sorted(vif["device"] for vif in self._wiring.interfaces(self._guests.named(name).ref).values())


def _whole(value: float, units: str) -> int:
    return max(0, int(value * 100 if "fraction" in units else value))
