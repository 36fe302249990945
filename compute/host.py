"""What the verbs of one host share: its database, driver, lanes and look-ups, and the facts it reports."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from compute.errors import ActionNotFoundError, ClaimLostError, InstanceNotFoundError
from compute.lanes import Lane
from compute.ops.filters import Filters
from compute.rpcapi import ComputeRPC
from compute.scheduler import Scheduler
from compute.sealing import Sealer
from compute.settings import Settings
from compute.specs import SpecBuilder
from compute.task import Tasks
from compute.volume import Maker
from db import actions, compute_nodes, instances, work
from db.actions import Action
from db.errors import RowNotFoundError
from db.instances import Instance
from db.session import Database
from virt.driver import ComputeDriver, LiveMigratable
from virt.errors import GuestNotFoundError
from virt.spec import InstanceSpec

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Host:
    """One hypervisor host as its daemon sees it."""

    db: Database
    driver: ComputeDriver
    tasks: Tasks
    specs: SpecBuilder
    sealer: Sealer
    scheduler: Scheduler
    rpc: ComputeRPC
    settings: Settings
    service_id: int
    maker: Maker
    builds: Lane
    migrations: Lane
    snapshots: Lane
    filters: Filters

    def instance(self, instance_id: int) -> Instance:
        """A live instance; InstanceNotFoundError when there is none."""
        try:
            return self.db.query(instances.get, instance_id)
        except RowNotFoundError as exc:
            raise InstanceNotFoundError(str(exc)) from exc

    def spec_of(self, instance_id: int) -> InstanceSpec:
        """The spec of a live instance, for verbs that change nothing."""
        self.instance(instance_id)
        return self.specs.build(self.db.query(work.for_instance, instance_id, with_groups=self.tasks.with_groups))

    def order(self, action_id: int | None, step: str) -> Action:
        """The order that a later leg belongs to; ActionNotFoundError when the message names none."""
        if action_id is None:
            raise ActionNotFoundError(f"{step} goes on with an order: the message must name its action_id")
        try:
            return self.db.query(actions.get, action_id)
        except RowNotFoundError as exc:
            raise ActionNotFoundError(str(exc)) from exc

    def is_locked(self, instance_id: int) -> bool:
        """True if only administrators may act on it."""
        return self.instance(instance_id).locked

    def set_locked(self, instance_id: int, *, locked: bool) -> None:
        """Write the lock flag."""
        self.instance(instance_id)
        self.db.run(instances.update, instance_id, locked=locked)

    def guarded(self, job: Callable[[], None]) -> Callable[[], None]:
        """`job` for a lane: errors that are answers are logged as one line, because nobody waits for them."""

        def run() -> None:
            try:
                job()
            except ClaimLostError as exc:
                LOG.debug("%s", exc)
            except Exception as exc:
                if not getattr(exc, "expected", False):
                    raise
                LOG.info("refused: %s", exc)

        return run

    def forget_guest(self, instance_id: int) -> None:
        """Remove what a guest that did not come left here, unless its record says that it lives here."""
        row = self.instance(instance_id)
        if row.host == self.settings.host or not isinstance(self.driver, LiveMigratable):
            return
        try:
            power = self.driver.get_info(self.specs.name_of(instance_id)).power
        except GuestNotFoundError:
            self.driver.cleanup_live_migration(self.spec_of(instance_id))
            return
        LOG.error("instance %d: a guest that belongs to %s is %s here; left alone", row.id, row.host, power.label)

    def report_resources(self) -> None:
        """Write totals and recount claims: the same cost at any number of guests."""
        self.db.run(compute_nodes.report, self.service_id, self.settings.host, self._totals())

    def _totals(self) -> dict[str, Any]:
        found, flags = self.driver.host_resources(), self.settings
        return {
            "vcpus": max(found.vcpus - flags.reserved_host_vcpus, 0),
            "memory_mb": max(found.memory_mb - flags.reserved_host_memory_mb, 0),
            "local_gb": max(found.local_gb - flags.reserved_host_disk_gb, 0),
            "cpu_allocation_ratio": flags.cpu_allocation_ratio,
            "ram_allocation_ratio": flags.ram_allocation_ratio,
            "disk_allocation_ratio": flags.disk_allocation_ratio,
            "hypervisor_type": found.hypervisor_type,
            "hypervisor_version": found.hypervisor_version,
            "cpu_info": found.cpu_info,
            "free_memory_mb": max(found.memory_mb - found.memory_mb_used, 0),
            "free_local_gb": max(found.local_gb - found.local_gb_used, 0),
        }
