"""Keep this host's packet filters as the records say; drivers without filters have nothing to keep.

Messages only say that something changed: what it is now is read from the database, once for all messages that come
within a moment. A message that is lost is made up for by the next audit.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from compute.errors import ComputeError
from compute.refreshing import Refreshing
from compute.specs import SpecBuilder, member_addresses
from compute.states import Task
from compute.work import Work
from db import provider_fw_rules, security_groups, work
from db.session import Database, Tx
from virt.driver import ComputeDriver, FiltersTraffic
from virt.firewall.base import Drift
from virt.spec import InstanceSpec

LOG = logging.getLogger(__name__)
GATHER_S = 0.1


class Filters:
    """The filters of one host's guests, by its records. enabled: False when firewall_driver is noop."""

    def __init__(
        self,
        db: Database,
        driver: ComputeDriver,
        specs: SpecBuilder,
        host: str,
        *,
        enabled: bool,
        gather_s: float = GATHER_S,
    ) -> None:
        self._db, self._specs, self._host, self._gather_s = db, specs, host, gather_s
        self._driver = driver if enabled and isinstance(driver, FiltersTraffic) else None
        self._lock, self._working = threading.Lock(), threading.Lock()
        self._rules: set[int] = set()
        self._members: set[int] = set()
        self._is_gathering = False
        self._groups_of: dict[int, set[int]] = {}

    @property
    def enabled(self) -> bool:
        """False where nothing is filtered."""
        return self._driver is not None

    def rules_changed(self, group_id: int) -> None:
        """The rules of a group changed, or which instances are in it."""
        self._gather(self._rules, group_id)

    def members_changed(self, group_id: int) -> None:
        """The addresses of a group's members changed."""
        self._gather(self._members, group_id)

    def provider_rules_changed(self) -> None:
        """The provider's deny rules changed."""
        if self._driver is not None:
            with self._working:
                self._driver.refresh_provider_fw_rules(self._db.query(_provider_rules))

    def audit(self) -> Sequence[Drift]:
        """Where the host's filters differ from the records."""
        if self._driver is None:
            return []
        with self._working:
            return self._driver.audit_filters(*self._everything())

    def repair(self) -> Sequence[Drift]:
        """Make the host's filters what the records say. Says what was amiss, to the log too."""
        if self._driver is None:
            return []
        with self._working:
            found = self._driver.repair_filters(*self._everything())
        for drift in found:
            LOG.log(logging.ERROR if drift.opened else logging.WARNING, "packet filters: mended: %s", drift)
        return found

    def _everything(self) -> tuple[list[InstanceSpec], list[dict[str, str]]]:
        with self._db.read() as tx:
            self._groups_of = security_groups.filtered_on(tx, self._host)
            return self._build(tx, self._groups_of), _provider_rules(tx)

    def _gather(self, pending: set[int], group_id: int) -> None:
        """Note a change; whoever notes the first of a burst waits for the rest of it and does the work of all."""
        if self._driver is None:
            return
        with self._lock:
            pending.add(group_id)
            if self._is_gathering:
                return
            self._is_gathering = True
        time.sleep(self._gather_s)
        with self._lock:
            self._is_gathering = False
            rules, members = set(self._rules), set(self._members)
            self._rules.clear()
            self._members.clear()
        with self._working:
            self._refresh(self._driver, rules, members)

    def _refresh(self, driver: FiltersTraffic, rules: set[int], members: set[int]) -> None:
        if rules:
            driver.refresh_security_group_rules(self._db.query(self._concerned, rules))
        if members:
            for group_id, found in self._db.query(security_groups.members, members).items():
                driver.refresh_security_group_members(group_id, member_addresses(found))

    def _concerned(self, tx: Tx, changed: set[int]) -> list[InstanceSpec]:
        """The guests that are in one of these groups, or were, or were not looked at before."""
        before, now = self._groups_of, security_groups.filtered_on(tx, self._host)
        self._groups_of = now
        concerned = [one for one, groups in now.items() if one not in before or changed & (groups | before[one])]
        return self._build(tx, concerned)

    def _build(self, tx: Tx, instance_ids: Sequence[int] | Mapping[int, object]) -> list[InstanceSpec]:
        return [self._specs.build(found) for found in work.for_filters(tx, list(instance_ids))]


def tell_of(refresh: Refreshing, job: Work) -> None:
    """Tell the hosts whose guests let in the groups that an operation put an instance into, or took it out of."""
    if job.task not in {Task.SPAWNING, Task.DELETING} or not job.dossier.groups or job.abandoned:
        return
    try:
        refresh.members_changed(job.context, [group.id for group in job.dossier.groups])
    except ComputeError as exc:
        LOG.warning("instance %d: hosts hear of its groups' members by their next audit: %s", job.instance.id, exc)


def _provider_rules(tx: Tx) -> list[dict[str, str]]:
    return [{key: str(value) for key, value in asdict(one).items()} for one in provider_fw_rules.list_all(tx)]
