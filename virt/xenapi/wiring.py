"""What is plugged into a VM: disks at their devices, interfaces on their networks.

`disks` and `vifs` bring a VM that is off to what it should have, from whatever it has; done again, they do nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from virt.errors import NetworkError
from virt.spec import InstanceSpec, Vif
from virt.xenapi.errors import GoneError
from virt.xenapi.helper import HelperBase, Record
from virt.xenapi.networks import Networks, addresses_of, vif_record
from virt.xenapi.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Plug:
    """A VDI at a device (`0` is the first) of a VM. mark: what the connection carries to be known by.

    All are writable, the config drive too: xapi starts no HVM guest with a disk that is not.
    """

    vdi: str
    device: str
    mark: Mapping[str, str] = field(default_factory=dict)

    def record(self, vm: str) -> dict[str, Any]:
        """The VBD."""
        return {
            "VM": vm, "VDI": self.vdi, "userdevice": self.device, "bootable": self.device == "0", "mode": "RW",
            "type": "Disk", "unpluggable": True, "empty": False, "other_config": dict(self.mark),
            "qos_algorithm_type": "", "qos_algorithm_params": {},
        }  # fmt: skip

    def is_in(self, vbd: Record) -> bool:
        """True if a VBD is this very connection."""
        facts = (vbd["VDI"], vbd["userdevice"], bool(vbd["bootable"]), dict(vbd["other_config"]))
        return facts == (self.vdi, self.device, self.device == "0", dict(self.mark))


class Wiring(HelperBase):
    """VBDs and VIFs of VMs."""

    def __init__(self, session: Session, networks: Networks) -> None:
        super().__init__(session)
        self._networks = networks

    def vbds(self, vm: str) -> dict[str, Record]:
        """What is plugged into a VM, by reference."""
        return self._records("VBD", self.call("VM.get_VBDs", vm))

    def plug(self, vm: str, plug: Plug) -> str:
        """Connect a VDI; the VBD."""
        known = set(self.call("VM.get_VBDs", vm))

        def find() -> str | None:
            vbds = self.vbds(vm)
            return next((ref for ref, vbd in vbds.items() if ref not in known and plug.is_in(vbd)), None)

        return self.make(find, "VBD.create", plug.record(vm))

    def disks(self, vm: str, wanted: Sequence[Plug]) -> None:
        """Have these disks, and no others, in a VM that is off."""
        present = self.vbds(vm)
        missing = list(wanted)
        for ref, vbd in present.items():
            same = next((plug for plug in missing if plug.is_in(vbd)), None)
            if same is None:
                self.session.destroy("VBD", ref)
            else:
                missing.remove(same)
        for plug in missing:
            self.plug(vm, plug)

    def vifs(self, vm: str, spec: InstanceSpec) -> None:
        """Have the interfaces of `spec`, and no others, in a VM that is off. Raises NetworkError."""
        wanted = {vif.mac.lower(): (vif, self._networks.find(vif.network)) for vif in spec.vifs}
        for ref, record in self.interfaces(vm).items():
            vif, network = wanted.get(record["MAC"].lower(), (None, ""))
            if vif is None or record["network"] != network:
                self.session.destroy("VIF", ref)
            else:
                self._lock(ref, record, vif)
                del wanted[vif.mac.lower()]
        for vif, network in wanted.values():
            self.add_vif(vm, vif, network)

    def interfaces(self, vm: str) -> dict[str, Record]:
        """The interfaces of a VM."""
        return self._records("VIF", self.call("VM.get_VIFs", vm))

    def add_vif(self, vm: str, vif: Vif, network: str) -> str:
        """Another interface at the next free device; locked to its own addresses from its first packet on.

        Raises NetworkError when there is no free device.
        """

        def find() -> str | None:
            return next(
                (ref for ref, one in self.interfaces(vm).items() if one["MAC"].lower() == vif.mac.lower()), None
            )

        free = self.call("VM.get_allowed_VIF_devices", vm)
        if not free:
            raise NetworkError(f"interface {vif.mac}: the VM has as many interfaces as xapi allows")
        return self.make(find, "VIF.create", vif_record(vm, network, vif, min(free, key=int)))

    def _lock(self, ref: str, record: Record, vif: Vif) -> None:
        v4, v6 = addresses_of(vif)
        for fact, wanted in (("ipv4_allowed", v4), ("ipv6_allowed", v6)):
            if sorted(record[fact]) != sorted(wanted):
                self.call(f"VIF.set_{fact}", ref, wanted)
        if record["locking_mode"] != "locked":
            self.call("VIF.set_locking_mode", ref, "locked")

    def _records(self, kind: str, refs: Sequence[str]) -> dict[str, Record]:
        found = {}
        for ref in refs:
            try:
                found[ref] = self.call(f"{kind}.get_record", ref)
            except GoneError:
                continue
        return found
