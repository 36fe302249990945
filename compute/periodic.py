"""What the daemon does by the clock: heartbeat, re-drive, sync, resource report, rescue timeout, orphan audit."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import Any

from compute import cleaning, expiry, faults, orders
from compute.context import get_admin_context
from compute.errors import AbortedError, ComputeError
from compute.host import Host
from compute.recovery import Recovery
from compute.states import Task, Vm
from compute.sync import PowerSync
from compute.timers import Timer
from db import actions, instances, services
from virt.driver import CachesImages, require

LOG = logging.getLogger(__name__)


class Periodic:
    """The timers of one host."""

    def __init__(self, host: Host, recovery: Recovery, sync: PowerSync, lost_host: Callable[[], None]) -> None:
        """lost_host: called once when another start has taken this host over."""
        self._host, self._recovery, self._sync, self._lost_host = host, recovery, sync, lost_host

    def timers(self, report_interval_s: float, redrive_interval_s: float, periodic_interval_s: float) -> list[Timer]:
        """The timers, not started."""
        return [
            Timer("heartbeat", report_interval_s, self.heartbeat),
            Timer("re-drive", redrive_interval_s, self.redrive),
            Timer("power sync", periodic_interval_s, self.sync),
            Timer("resource report", periodic_interval_s, self._host.report_resources),
            Timer("host's own things", periodic_interval_s, self._host.driver.tend),
        ]

    def upkeep(self, image_cache_interval_s: float, filter_audit_interval_s: float) -> list[Timer]:
        """The timers of what only some drivers do, not started."""
        timers = []
        if image_cache_interval_s and isinstance(self._host.driver, CachesImages):
            timers.append(Timer("image cache", image_cache_interval_s, self.evict_images))
        if filter_audit_interval_s and self._host.filters.enabled:
            timers.append(Timer("packet filters", filter_audit_interval_s, self._host.filters.repair))
        return timers

    def evict_images(self) -> None:
        """Drop images that no guest has had for long."""
        for name in require(self._host.driver, CachesImages).evict_images(self._host.settings.image_cache_max_age):
            LOG.info("image cache: %s was not used any more", name)

    def heartbeat(self) -> None:
        """Say that this start is alive, by the database's clock; stop serving when another start owns the host."""
        if not self._host.db.run(services.heartbeat, self._host.service_id, self._host.tasks.owner):
            LOG.error("host %s has been taken over by another start of its daemon", self._host.settings.host)
            self._lost_host()

    def redrive(self) -> None:
        """Ring for orders that nobody rang for, settle interrupted ones, end what waits for the dead or too long."""
        self._host.tasks.settling.write_kept()
        self._recovery.run(min_age_s=self._host.settings.redrive_interval)
        cleaning.end_without_the_dead(self._host)
        expiry.run(self._host)
        self._free_lost_tasks()

    def sync(self) -> None:
        """Bring records to what the hypervisor says, then let rescues end that have lasted too long."""
        self._sync.run()
        if self._host.settings.rescue_timeout > 0:
            self._end_old_rescues()

    def _free_lost_tasks(self) -> None:
        """An instance that is taken with no open order was taken by somebody else, who will not give it back."""
        for instance_id in self._host.db.query(actions.lost_tasks, self._host.settings.host):
            row = self._host.instance(instance_id)
            if row.task_state in {None, orders.SCHEDULING}:
                continue
            LOG.error("instance %d: %s has no order behind it; freed", instance_id, row.task_state)
            error = AbortedError(f"{row.task_state} of instance {instance_id} had no order behind it")
            changes: dict[str, Any] = {"fault": faults.fault(error, "re-drive")}
            if row.vm_state == Vm.BUILDING:
                changes["vm_state"] = Vm.ERROR.value
            self._host.db.run(instances.end_task, instance_id, str(row.task_state), changes)

    def _end_old_rescues(self) -> None:
        flags = self._host.settings
        for instance_id in self._host.db.query(instances.rescued_before, flags.host, flags.rescue_timeout):
            LOG.info("instance %d: rescued for more than %s s", instance_id, flags.rescue_timeout)
            try:
                self._host.db.run(
                    orders.accept,
                    self._host.sealer,
                    get_admin_context(),
                    instance_id,
                    Task.UNRESCUING,
                    op_id=str(uuid.uuid4()),
                )
            except ComputeError as exc:
                LOG.info("instance %d: %s", instance_id, exc)
