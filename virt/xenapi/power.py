"""Starting, stopping and the states between.

What a call was to bring about is looked for in the VM's power state: before it, since it may be so already, and after
it when its answer was lost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection

from virt.driver import Progress, no_progress
from virt.errors import DriverTimeoutError, GuestStateError, HypervisorUnreachableError
from virt.power_state import Power
from virt.spec import InstanceSpec
from virt.xenapi.errors import LostReplyError, XapiError
from virt.xenapi.guests import Guest, Guests, power_of
from virt.xenapi.helper import HelperBase
from virt.xenapi.session import Session

LOG = logging.getLogger(__name__)

_POLL_S = 0.25
_RUNNING, _PAUSED, _SUSPENDED, _OFF = Power.RUNNING, Power.PAUSED, Power.SUSPENDED, Power.SHUTOFF


class PowerSwitch(HelperBase):
    """Moves guests of one host between power states. task_s: seconds that such a move may take."""

    def __init__(self, session: Session, guests: Guests, *, task_s: float = 1200.0) -> None:
        super().__init__(session)
        self._guests, self._task_s = guests, task_s

    def start(self, vm: str) -> None:
        """Start a VM that is off, on this host."""
        self._bring(vm, _RUNNING, "VM.start_on", self._guests.host, False, False)

    def stop(self, vm: str) -> None:
        """Pull a VM's plug; succeed if it is off. Saved memory is lost."""
        if self._power(vm) is not _OFF:
            self._bring(vm, _OFF, "VM.hard_shutdown")

    def shut_down(self, vm: str, timeout_s: float) -> bool:
        """Ask a running guest to shut down; True if it is off within `timeout_s`."""
        return self._ask(vm, "VM.clean_shutdown", timeout_s) or self._power(vm) is _OFF

    def reboot_softly(self, vm: str, timeout_s: float) -> bool:
        """Ask a running guest to restart; True if it did within `timeout_s`."""
        return self._ask(vm, "VM.clean_reboot", timeout_s)

    def pause(self, spec: InstanceSpec) -> None:
        """Freeze a running guest."""
        self._move(spec, _PAUSED, {_RUNNING}, "paused", "VM.pause")

    def unpause(self, spec: InstanceSpec) -> None:
        """Let a paused guest go on."""
        self._move(spec, _RUNNING, {_PAUSED}, "unpaused", "VM.unpause")

    def suspend(self, spec: InstanceSpec) -> None:
        """Save a guest's memory and stop it. A paused one goes on first: xapi saves only what runs."""
        guest = self._guests.find(spec)
        if guest.power is _PAUSED:
            self._bring(guest.ref, _RUNNING, "VM.unpause")
        self._move(spec, _SUSPENDED, {_RUNNING}, "suspended", "VM.suspend")

    def resume(self, spec: InstanceSpec) -> None:
        """Go on from saved memory, on this host."""
        self._move(spec, _RUNNING, {_SUSPENDED}, "resumed", "VM.resume_on", self._guests.host, False, False)

    def settle(self, vm: str, wanted: Power, progress: Progress = no_progress) -> bool:
        """Wait while something is done to a VM; True if it is in the wanted state then."""
        deadline = time.monotonic() + self._task_s
        while True:
            record = self.call("VM.get_record", vm)
            if power_of(record) is wanted:
                return True
            if not record["current_operations"] or time.monotonic() >= deadline:
                return False
            progress("waiting for the pool")
            time.sleep(_POLL_S)

    def _move(
        self, spec: InstanceSpec, wanted: Power, allowed: Collection[Power], verb: str, method: str, *args: object
    ) -> None:  # fmt: skip
        guest: Guest = self._guests.find(spec)
        if guest.power is wanted:
            return
        if guest.power not in allowed:
            raise GuestStateError(f"guest {spec.name}: is {guest.power.name}, so it cannot be {verb}")
        self._bring(guest.ref, wanted, method, *args)

    def _bring(self, vm: str, wanted: Power, method: str, *args: object) -> None:
        try:
            self.run(method, vm, *args, timeout_s=self._task_s)
        except (LostReplyError, XapiError) as exc:
            if not self._came_about(vm, wanted, exc):
                raise
            LOG.info("%s: %s; the VM is %s", method, exc, wanted.name)

    def _came_about(self, vm: str, wanted: Power, error: LostReplyError | XapiError) -> bool:
        """Whether a VM is in the wanted state although that is not what xapi said."""
        if isinstance(error, LostReplyError) or error.code == "TASK_CANCELLED":  # by somebody, or by xapi's restart
            try:
                return self.settle(vm, wanted)
            except HypervisorUnreachableError as exc:
                raise LostReplyError(f"{error}; what came of it, nobody knows: {exc}") from error
        return error.code == "VM_BAD_POWER_STATE" and self._power(vm) is wanted

    def _ask(self, vm: str, method: str, timeout_s: float) -> bool:
        """True when the guest did what it was asked; a deaf one, or one without drivers, does not."""
        try:
            self.run(method, vm, timeout_s=timeout_s)
        except (XapiError, DriverTimeoutError) as exc:
            if isinstance(exc, LostReplyError):
                raise
            LOG.info("%s: the guest does not obey: %s", method, exc)
            return False
        return True

    def _power(self, vm: str) -> Power:
        record = {"power_state": self.call("VM.get_power_state", vm)}
        return power_of(record)
