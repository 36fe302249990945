"""After a boot of the host, start the guests that ran when it went down.

The kernel's boot id is kept in state_path. When it is another one at the daemon's start, every guest is off because
the host was; otherwise one that is off was shut down by somebody, and stays so. Starts are ordinary orders, a hard
reboot each: they make networks and filters before the guest, and survive the daemon. libvirt's own autostart is never
used: it knows of neither.
"""

from __future__ import annotations

import logging
import os
import uuid
from pathlib import Path

from compute import orders
from compute.context import RequestContext
from compute.errors import ConflictError
from compute.host import Host
from compute.states import Task, Vm
from db import instances
from virt.power_state import Power
from virt.spec import GuestFact

LOG = logging.getLogger(__name__)
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
ON_HOST_BOOT = "on_host_boot"
"""Argument of such an order: many come at once, so they wait their turn with the builds."""
_OFF = {Power.SHUTDOWN, Power.SHUTOFF, Power.CRASHED}  # one whose memory was saved is not started from its disk


class HostBoot:
    """What one host's daemon does about a boot. enabled: flag start_guests_on_host_boot."""

    def __init__(self, host: Host, state_path: str, *, enabled: bool, boot_id: Path = BOOT_ID) -> None:
        self._host, self._enabled, self._boot_id = host, enabled, boot_id
        self._kept = Path(state_path) / f"boot_id.{host.settings.host}"

    def run(self) -> list[int]:
        """Order starts if the host was booted since the last daemon; the instances. Raises what the driver raises.

        The new id is kept once every order is written, so a crash on the way loses none and writes none twice.
        """
        now, before = self._boot_id.read_text().strip(), self._read()
        if now == before:
            return []
        started = self._start_all(now) if self._enabled and before is not None else []
        self._keep(now)
        return started

    def _start_all(self, boot: str) -> list[int]:
        host = self._host
        facts = {fact.uuid: fact for fact in host.driver.list_guests() if fact.ours and fact.uuid}
        records = host.db.query(instances.power_records, host.settings.host)
        down = [one for one in records if _was_up(one, facts.get(one.uuid))]
        LOG.info("the host was booted: %d guests that ran are started", len(down))
        return [one.id for one in down if self._order(one.id, str(uuid.uuid5(uuid.NAMESPACE_OID, boot + one.uuid)))]

    def _order(self, instance_id: int, op_id: str) -> bool:
        host, row = self._host, self._host.instance(instance_id)
        context = RequestContext(user_id=row.user_id, project_id=row.project_id, is_admin=True)
        args = {"reboot_type": "HARD", ON_HOST_BOOT: True}
        try:
            host.db.run(orders.accept, host.sealer, context, instance_id, Task.REBOOTING_HARD, op_id=op_id, args=args)
        except ConflictError as exc:  # somebody was faster, and decides
            LOG.info("instance %d: is not started: %s", instance_id, exc)
            return False
        return True

    def _read(self) -> str | None:
        try:
            return self._kept.read_text().strip()
        except FileNotFoundError:
            return None

    def _keep(self, boot: str) -> None:
        part = self._kept.with_name(self._kept.name + ".part")
        with part.open("w") as file:
            file.write(boot + "\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._kept)


def _was_up(record: instances.PowerRecord, fact: GuestFact | None) -> bool:
    """True for a guest that runs by its record, is off by the hypervisor, and has nothing done to it."""
    return record.vm_state == Vm.ACTIVE and record.task_state is None and fact is not None and fact.power in _OFF
