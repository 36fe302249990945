"""Claim an instance for an operation, and end it: done, failed with its fault, aborted, or passed on.

`Tasks.claim` is a context manager around the body of a verb. On entry it takes the work order (a repeated message
finds it taken and raises ClaimLostError); on exit it settles instance and journal in one transaction. A BaseException
that is no Exception leaves both as they are, as a crash would: recovery deals with it.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from compute import faults, orders
from compute.context import RequestContext
from compute.errors import ClaimLostError, ConflictError, InstanceNotFoundError, NotFoundError
from compute.metrics import Meter
from compute.sealing import Sealer
from compute.settling import PassedOn, Settling
from compute.specs import SpecBuilder
from compute.states import MOVES, Task
from compute.work import DaemonStopped, Work
from db import actions, instances, work
from db.actions import Action
from db.errors import DuplicateRowError, RowNotFoundError
from db.instances import Instance
from db.session import Database, Tx, utcnow
from virt.driver import ComputeDriver

LOG = logging.getLogger(__name__)
NO_ARGS: Mapping[str, Any] = MappingProxyType({})
_ELSEWHERE = frozenset(
    {Task.RESIZING, Task.CONFIRMING_RESIZE}
)  # tasks whose verb goes to another host than the guest's


class Tasks:
    """Claims and settles this daemon's operations, and knows which are running."""

    def __init__(
        self,
        *,
        db: Database,
        driver: ComputeDriver,
        specs: SpecBuilder,
        sealer: Sealer,
        host: str,
        owner: str,
        with_groups: bool,
        passed_on: PassedOn,
        ended: Callable[[Work], None] = lambda _: None,
    ) -> None:
        """ended: called with every operation that is over, however it ended."""
        self.db, self.driver, self.specs, self.sealer = db, driver, specs, sealer
        self.host, self.owner, self.with_groups = host, owner, with_groups
        self.settling = Settling(db=db, driver=driver, sealer=sealer, owner=owner, passed_on=passed_on)
        self.meter = Meter()
        self._ended = ended
        self._stopping = False
        self._running: dict[int, Work] = {}
        self._arriving: Counter[int] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def claim(
        self,
        context: RequestContext,
        instance_id: int,
        task: Task,
        action_id: int | None,
        args: Mapping[str, Any] = NO_ARGS,
        *,
        step: str | None = None,
    ) -> Iterator[Work]:
        """Run the body as `task` of the instance.

        With `action_id` the order is in the journal, arguments included, and those given here do not count; without,
        a plain cast, it is written now. Raises ClaimLostError, or why the instance cannot be taken.
        """
        step = step or MOVES[task].verb
        with self._arriving_for(instance_id):
            order_id = self._take(context, instance_id, task, action_id, step, args)
            job = self._begin(context, order_id)
        with self._conducted(job):
            yield job

    def _take(
        self,
        context: RequestContext,
        instance_id: int,
        task: Task,
        action_id: int | None,
        step: str,
        args: Mapping[str, Any],
    ) -> int:
        if self._stopping:
            raise ClaimLostError(f"{step} of instance {instance_id}: this daemon stops")
        if action_id is None:
            running = {"state": actions.RUNNING, "owner": self.owner, "attempt": 1, "started_at": utcnow()}
            return self._order_on_arrival(context, instance_id, task, step, args, running)
        if not self.db.run_single(actions.claim, action_id, instance_id, step, host=self.host, owner=self.owner):
            raise ClaimLostError(f"{step} of instance {instance_id}: order {action_id} is not to be done here now")
        return action_id

    def order(
        self, context: RequestContext, instance_id: int, task: Task, action_id: int | None, args: Mapping[str, Any]
    ) -> int:
        """The order of an operation that waits its turn; that of a plain cast is written now, so a crash keeps it.

        Raises why the instance cannot be taken.
        """
        if action_id is not None:
            return action_id
        return self._order_on_arrival(context, instance_id, task, MOVES[task].verb, args, {})

    @contextmanager
    def _arriving_for(self, instance_id: int) -> Iterator[None]:
        """Between the commit that takes an order and its entry among the running, it must not look abandoned."""
        with self._lock:
            self._arriving[instance_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._arriving[instance_id] -= 1
                self._arriving += Counter()  # drops what is zero

    @contextmanager
    def resume(self, context: RequestContext, action_id: int) -> Iterator[Work]:
        """Run the body as an order that recovery has adopted."""
        with self._conducted(self._begin(context, action_id)) as job:
            yield job

    @contextmanager
    def _conducted(self, job: Work) -> Iterator[Work]:
        try:
            with self.meter.operation(job.task):
                try:
                    yield job
                except Exception as exc:
                    self.settling.fail(job, exc)
                    if job.abandoned:
                        raise DaemonStopped from exc
                    raise
                self.settling.end(job)
        finally:
            with self._lock:
                del self._running[job.action.id]
            job.left.set()
        self._ended(job)

    def stop(self) -> None:
        """Begin nothing more, and leave what runs to the next start, as it is."""
        self._stopping = True
        for job in self.running():
            job.abandon()

    def running(self, instance_id: int | None = None) -> list[Work]:
        """The operations that this daemon is running, of one instance or all."""
        with self._lock:
            return [job for job in self._running.values() if instance_id in {None, job.instance.id}]

    def is_running(self, action: Action) -> bool:
        """True while this daemon runs that order, is about to, or has its end still to write."""
        with self._lock:
            busy = action.id in self._running or action.instance_id in self._arriving
        return busy or self.settling.is_kept(action.id)

    def expire(self, job: Work) -> None:
        """Cancel an operation whose deadline passed; if it was cancelled before and hangs still, fail it without it.

        When it wakes up after all, it finds its order ended and undoes what it did.
        """
        reason = f"its deadline of {job.move.deadline_s} s passed"
        if not job.cancelled:
            job.cancel(reason)
            return
        self.settling.fail_without(job, reason)

    def _order_on_arrival(
        self,
        context: RequestContext,
        instance_id: int,
        task: Task,
        step: str,
        args: Mapping[str, Any],
        state: Mapping[str, Any],
    ) -> int:
        key = orders.message_key(self.sealer, context.request_id, args)
        columns = {"step": step, "message_id": key, **state}
        try:
            return self.db.run(self._write_order, context, instance_id, task, {**args, orders.PLAIN: True}, columns)
        except DuplicateRowError as exc:
            raise ClaimLostError(f"{step} of instance {instance_id}: request {context.request_id} came twice") from exc
        except RowNotFoundError as exc:
            raise InstanceNotFoundError(str(exc)) from exc
        except ConflictError as exc:
            self._record_refusal(context, instance_id, task, key, exc)
            raise

    def _write_order(
        self,
        tx: Tx,
        context: RequestContext,
        instance_id: int,
        task: Task,
        args: Mapping[str, Any],
        columns: Mapping[str, Any],
    ) -> int:
        instance = instances.get(tx, instance_id)
        packed = orders.pack(self.sealer, args)
        row = orders.journal_row(tx, context, task, instance_id, host=self.host, args=packed, **columns)
        action_id = actions.create(tx, row)
        if instance.host not in {None, self.host} and task not in _ELSEWHERE:
            raise ConflictError(f"instance {instance_id} is on host {instance.host}, not {self.host}")
        if task is Task.DELETING:
            self._take_for_delete(tx, context, instance, action_id)
        else:
            orders.take(tx, context, instance_id, task)
        return action_id

    def _take_for_delete(self, tx: Tx, context: RequestContext, instance: Instance, action_id: int) -> None:
        if not orders.take_for_delete(tx, context, instance, keep=action_id):
            raise ClaimLostError(f"instance {instance.id} is being deleted already")

    def _record_refusal(
        self, context: RequestContext, instance_id: int, task: Task, key: str, exc: ConflictError
    ) -> None:
        """A cast has nobody to answer to: the refusal stays readable in the instance's history."""
        if isinstance(exc, ClaimLostError):
            return

        def write(tx: Tx) -> None:
            ended: dict[str, Any] = {"state": actions.FAILED, "error": faults.message_of(exc), "finished_at": utcnow()}
            row = orders.journal_row(tx, context, task, instance_id, host=self.host, args="{}", **ended)
            actions.create(tx, {**row, "message_id": key})

        try:
            self.db.run(write)
        except DuplicateRowError:
            LOG.debug("instance %d: refusal of %s is recorded already", instance_id, task)

    def _begin(self, context: RequestContext, action_id: int) -> Work:
        dossier = self.db.query(work.for_action, action_id, with_groups=self.with_groups)
        if dossier.action is None:
            raise NotFoundError(f"no action {action_id}")
        job = Work(self, context, dossier, orders.unpack(self.sealer, dossier.action.args))
        with self._lock:
            self._running[action_id] = job
        if self._stopping:
            job.abandon()
        LOG.info("instance %d: %s started", job.instance.id, job.task)
        return job
