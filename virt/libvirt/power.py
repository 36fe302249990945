"""Starting, stopping and the states between."""

from __future__ import annotations

import logging
import time

from virt.errors import GuestStateError
from virt.libvirt.domains import Domains
from virt.power_state import Power
from virt.spec import InstanceSpec

LOG = logging.getLogger(__name__)

_POLL_S = 0.2
_ASK_AGAIN_S = 5.0
RUNS = {Power.RUNNING, Power.BLOCKED}
_OFF = {Power.SHUTOFF, Power.SUSPENDED, Power.CRASHED}


def reboot(domains: Domains, spec: InstanceSpec, xml: str, *, hard: bool, timeout_s: float) -> None:
    """Restart the guest; a soft reboot that the guest does not obey becomes a hard one."""
    if not hard and domains.power(spec) in RUNS and not shut_down(domains, spec, timeout_s):
        LOG.info("guest %s: did not shut down within %g s, so it is rebooted the hard way", spec.name, timeout_s)
    domains.restart(spec, xml)


def power_on(domains: Domains, spec: InstanceSpec, xml: str) -> None:
    """Start a guest that is off; one with saved memory goes on from it."""
    power = domains.power(spec)
    if power in RUNS:
        return
    if power is Power.PAUSED:
        raise GuestStateError(f"guest {spec.name}: is paused, so it cannot be started")
    if power is Power.SUSPENDED:
        domains.start_saved(spec)
    else:
        domains.restart(spec, xml)


def power_off(domains: Domains, spec: InstanceSpec, timeout_s: float) -> None:
    """Stop the guest, asking it first when there is time for that."""
    power = domains.power(spec)
    if power in _OFF:
        return
    if timeout_s > 0 and power in RUNS and shut_down(domains, spec, timeout_s):
        return
    domains.stop(spec)


def shut_down(domains: Domains, spec: InstanceSpec, timeout_s: float) -> bool:
    """Ask the guest to shut down and wait; False when it still runs at the end. Asks again: a booting guest is deaf."""
    deadline, ask_at = time.monotonic() + timeout_s, 0.0
    while time.monotonic() < deadline:
        if time.monotonic() >= ask_at:
            domains.ask_to_shut_down(spec)
            ask_at = time.monotonic() + _ASK_AGAIN_S
        if domains.power(spec) in _OFF:
            return True
        time.sleep(min(_POLL_S, max(0.0, deadline - time.monotonic())))
    return domains.power(spec) in _OFF


def pause(domains: Domains, spec: InstanceSpec) -> None:
    """Freeze a running guest."""
    power = domains.power(spec)
    if power is not Power.PAUSED:
        _demand(spec, power, RUNS, "paused")
        domains.pause(spec)


def unpause(domains: Domains, spec: InstanceSpec) -> None:
    """Let a paused guest go on."""
    power = domains.power(spec)
    if power not in RUNS:
        _demand(spec, power, {Power.PAUSED}, "unpaused")
        domains.unpause(spec)


def suspend(domains: Domains, spec: InstanceSpec) -> None:
    """Save a guest's memory and stop it."""
    power = domains.power(spec)
    if power is not Power.SUSPENDED:
        _demand(spec, power, RUNS | {Power.PAUSED}, "suspended")
        domains.save(spec)


def resume(domains: Domains, spec: InstanceSpec) -> None:
    """Go on from saved memory; a guest that was paused when it was saved runs too."""
    power = domains.power(spec)
    if power not in RUNS:
        _demand(spec, power, {Power.SUSPENDED}, "resumed")
        domains.start_saved(spec)
        if domains.power(spec) is Power.PAUSED:
            domains.unpause(spec)


def _demand(spec: InstanceSpec, power: Power, allowed: set[Power], verb: str) -> None:
    if power not in allowed:
        raise GuestStateError(f"guest {spec.name}: is {power.name}, so it cannot be {verb}")
