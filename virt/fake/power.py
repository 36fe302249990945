"""Power states and the moves between them that a hypervisor allows."""

from __future__ import annotations

import time

from virt.errors import GuestStateError
from virt.fake import build
from virt.fake.hypervisor import FakeHypervisor
from virt.fake.records import Domain
from virt.power_state import Power
from virt.spec import InstanceSpec

_FROM = {
    "pause": {Power.RUNNING, Power.BLOCKED},
    "unpause": {Power.PAUSED},
    "suspend": {Power.RUNNING, Power.BLOCKED, Power.PAUSED},
    "resume": {Power.SUSPENDED},
}
_TO = {"pause": Power.PAUSED, "unpause": Power.RUNNING, "suspend": Power.SUSPENDED, "resume": Power.RUNNING}


def move(host: FakeHypervisor, name: str, verb: str) -> None:
    """Pause, unpause, suspend or resume; succeed if the guest is there already, GuestStateError if it may not."""
    with host.changing(name) as (_, domain):
        if domain.power is _TO[verb]:
            return
        if domain.power not in _FROM[verb]:
            raise GuestStateError(f"cannot {verb} guest {name}: it is {domain.power.name}")
        if not domain.power.is_on:
            host.check_memory(domain.memory_mb)
        domain.turn(_TO[verb])


def reboot(host: FakeHypervisor, spec: InstanceSpec, *, hard: bool, timeout_s: float) -> None:
    """Restart a guest: as it is when it obeys a soft request, else redefined, from any power state."""
    if not hard and _ask(host.domain(spec.name), timeout_s):
        with host.changing(spec.name) as (_, domain):
            build.boot(domain, "soft")
        return
    with host.changing(spec.name) as (held, domain):
        build.redefine(host, held, domain, spec)
        build.boot(domain, "hard")


def power_on(host: FakeHypervisor, spec: InstanceSpec) -> None:
    """Start a guest that is off; one with saved memory goes on from it."""
    with host.changing(spec.name) as (held, domain):
        if domain.power in {Power.RUNNING, Power.BLOCKED}:
            return
        if domain.power is Power.PAUSED:
            raise GuestStateError(f"cannot start guest {spec.name}: it is PAUSED")
        if domain.power is Power.SUSPENDED:
            host.check_memory(domain.memory_mb)
            domain.turn(Power.RUNNING)
            return
        build.redefine(host, held, domain, spec)
        build.boot(domain, "start")


def power_off(host: FakeHypervisor, name: str, timeout_s: float) -> None:
    """Stop a guest, asking it first when there is time for that; a suspended one is off as it is."""
    if not host.domain(name).power.is_on and host.domain(name).power is not Power.CRASHED:
        return
    asked = timeout_s > 0 and _ask(host.domain(name), timeout_s)
    with host.changing(name) as (_, domain):
        if asked:
            domain.say("reboot: Power down")
        domain.turn(Power.SHUTOFF)


def _ask(domain: Domain, timeout_s: float) -> bool:
    """True when the guest does what ACPI asks of it; a deaf one is waited for in vain."""
    if domain.power is not Power.RUNNING:
        return False
    if not domain.obeys:
        time.sleep(timeout_s)
    return domain.obeys
