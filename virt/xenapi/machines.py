"""Make VMs from a template, give them their size, and remove them."""

from __future__ import annotations

from virt.errors import ImageError
from virt.spec import InstanceSpec
from virt.xenapi import stamps
from virt.xenapi.errors import GoneError
from virt.xenapi.guests import Guest, Guests
from virt.xenapi.helper import HelperBase, Record
from virt.xenapi.pool import Place, Pool
from virt.xenapi.session import Session
from virt.xenapi.stamps import Stage, Stamp

MIB = 1024**2
_CLONE_S = 600.0


class Machines(HelperBase):
    """VMs of one host's guests, without what is plugged into them."""

    def __init__(
        self, session: Session, guests: Guests, pool: Pool, place: Place, *, template: str, task_s: float = 1200.0
    ) -> None:
        super().__init__(session)
        self._guests, self._pool, self._place = guests, pool, place
        self._stamp: Stamp = guests.stamp
        self._template, self._task_s = template, task_s

    def create(self, spec: InstanceSpec) -> str:
        """A VM of the guest's size, without disks and interfaces. It is not its guest until it is `finish`ed.

        It is cloned under a label that nothing else has, so a clone whose answer was lost is found by it.
        """
        template, label = self._pool.template(self._template), stamps.unfinished(spec)

        def find() -> str | None:
            return next(iter(self.call("VM.get_by_name_label", label)), None)

        vm = self.session.make(find, "VM.clone", template, label, timeout_s=_CLONE_S)
        record = self.call("VM.get_record", vm)
        # All of it, because a template's own tells `provision` which disks to make.
        self.call("VM.set_other_config", vm, self._stamp.of(spec, vm=record["uuid"], stage=Stage.UNFINISHED.value))
        if record["is_a_template"]:
            self.run("VM.provision", vm, timeout_s=self._task_s)
        for ref in record["VBDs"]:  # a template's empty CD drive
            self.session.destroy("VBD", ref)
        for ref in record["VIFs"]:
            self.session.destroy("VIF", ref)
        self.call("VM.set_name_description", vm, stamps.printable(spec.display_name))
        self.call("VM.set_affinity", vm, self._place.host.ref)
        self.call("VM.set_suspend_SR", vm, self._place.sr)
        self.fit(vm, record, spec)
        return vm

    def finish(self, vm: str, spec: InstanceSpec) -> None:
        """From now on the VM is the guest, and worth keeping."""
        record = self.call("VM.get_record", vm)
        self.call("VM.set_other_config", vm, self._stamp.over(record["other_config"], spec, vm=record["uuid"]))
        self.call("VM.set_name_label", vm, spec.name)

    def keep(self, vm: str, spec: InstanceSpec) -> None:
        """From now on the VM is no guest, but what a resize is reverted to.

        What a VM is, its other_config says; a stage is looked for by its label, which is there before and after it.
        """
        record = self.call("VM.get_record", vm)
        facts = self._stamp.over(record["other_config"], spec, vm=record["uuid"], stage=Stage.KEPT.value)
        self.call("VM.set_name_label", vm, stamps.kept(spec))
        self.call("VM.set_other_config", vm, facts)

    def fit(self, vm: str, record: Record, spec: InstanceSpec) -> None:
        """Give a VM that is off the memory, CPUs and firmware of `spec`."""
        size = str(spec.memory_mb * MIB)
        limits = ("memory_static_min", "memory_static_max", "memory_dynamic_min", "memory_dynamic_max")
        if any(record[limit] != size for limit in limits[1:]):
            self.call("VM.set_memory_limits", vm, min(record["memory_static_min"], size, key=int), size, size, size)
        cpus = [("VM.set_VCPUs_max", str(spec.vcpus)), ("VM.set_VCPUs_at_startup", str(spec.vcpus))]
        if int(record["VCPUs_max"]) > spec.vcpus:  # never more at the start than at most
            cpus.reverse()
        if not record["VCPUs_max"] == record["VCPUs_at_startup"] == str(spec.vcpus):
            for method, value in cpus:
                self.call(method, vm, value)
        boot = dict(record["HVM_boot_params"]) | {"order": "c"} | firmware_of(spec)
        if boot != record["HVM_boot_params"]:
            self.call("VM.set_HVM_boot_params", vm, boot)

    def remove(self, guest: Guest) -> None:
        """Remove a VM, running or not, but none of its disks; succeed if it is gone."""
        try:
            if self.call("VM.get_power_state", guest.ref) != "Halted":
                self.run("VM.hard_shutdown", guest.ref, timeout_s=self._task_s)
            self.session.destroy("VM", guest.ref)
        except GoneError:
            return


def firmware_of(spec: InstanceSpec) -> dict[str, str]:
    """The boot parameter of the firmware that the image asks for; none leaves the template's. Raises ImageError."""
    asked = spec.image.properties.get("hw_firmware_type", "") if spec.image else ""
    if asked not in {"", "bios", "uefi"}:
        raise ImageError(f"guest {spec.name}: its image asks for hw_firmware_type {asked!r}, there are bios and uefi")
    return {"firmware": asked} if asked else {}
