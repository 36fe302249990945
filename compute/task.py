"""Claim an instance for an operation, and end it: done, failed with its fault, aborted, or passed on.

`Tasks.claim` is a context manager around the body of a verb. On entry it takes the work order (a repeated message
finds it taken and raises ClaimLostError); on exit it settles instance and journal in one transaction. A BaseException
that is no Exception leaves both as they are, as a crash would: recovery deals with it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from types import MappingProxyType
from typing import Any

from compute import faults, orders
from compute.context import RequestContext
from compute.errors import AbortedError, ClaimLostError, ConflictError, InstanceNotFoundError, NotFoundError
from compute.sealing import Sealer
from compute.specs import SpecBuilder
from compute.states import MOVES, Move, Task, Vm
from compute.undo import Undo
from db import actions, instances, work
from db.actions import Action
from db.errors import DatabaseError, DuplicateRowError, RowNotFoundError
from db.instances import Instance
from db.session import Database, Tx, utcnow
from db.work import Dossier
from virt.driver import ComputeDriver
from virt.errors import VirtError
from virt.spec import InstanceSpec

LOG = logging.getLogger(__name__)
PROGRESS_INTERVAL_S = 1.0
NO_ARGS: Mapping[str, Any] = MappingProxyType({})
_ELSEWHERE = frozenset(
    {Task.RESIZING, Task.CONFIRMING_RESIZE}
)  # tasks whose verb goes to another host than the guest's

Write = Callable[[Tx], Any]
Choice = str | Callable[[Tx], str]
PassedOn = Callable[[Action], None]


class Work:
    """One operation while this daemon runs it. plain: nobody but the message asked for it, so no room is claimed."""

    def __init__(
        self, tasks: Tasks, context: RequestContext, dossier: Dossier, args: dict[str, Any], *, plain: bool
    ) -> None:
        if dossier.action is None:
            raise AssertionError("a work needs its order")
        self._tasks = tasks
        self.context, self.dossier, self.action, self.args = context, dossier, dossier.action, args
        self.plain = plain
        self.task = Task(dossier.action.action)
        self.undo = Undo()
        self.changes: dict[str, Any] = {}
        self.when_done: list[Write] = []
        self.when_failed: list[Write] = []
        self.end: Vm | None = self.move.end
        self.failed: Vm | None = self.move.failed
        self.failed_changes: dict[str, Any] = {}
        self.next_leg: tuple[str, Choice, dict[str, Any], list[Write]] | None = None
        self.left = threading.Event()
        self._cancelled: str | None = None
        self._progress_at = time.monotonic()

    @property
    def move(self) -> Move:
        """This task's row of the table."""
        return MOVES[self.task]

    @property
    def instance(self) -> Instance:
        """The instance's row as it was when the work was claimed."""
        return self.dossier.instance

    @property
    def driver(self) -> ComputeDriver:
        """This host's driver."""
        return self._tasks.driver

    @property
    def db(self) -> Database:
        """The database, for steps that write between the claim and the end."""
        return self._tasks.db

    @property
    def host(self) -> str:
        """This host."""
        return self._tasks.host

    def others(self) -> list[Work]:
        """Other operations on the same instance that this daemon still runs."""
        return [job for job in self._tasks.running(self.instance.id) if job is not self]

    @cached_property
    def spec(self) -> InstanceSpec:
        """What the driver is told."""
        return self._tasks.specs.build(self.dossier)

    def reload(self) -> InstanceSpec:
        """Read the instance anew (addresses, volumes, sizes may have changed) and return its new spec."""
        self.dossier = self._tasks.db.query(work.for_action, self.action.id, with_groups=self._tasks.with_groups)
        self.__dict__.pop("spec", None)
        return self.spec

    def progress(self, step: str) -> None:
        """Say what comes next; at most one write a second. AbortedError when the operation must not go on."""
        self.check()
        if time.monotonic() - self._progress_at >= PROGRESS_INTERVAL_S:
            self._progress_at = time.monotonic()
            if not self._tasks.db.run(actions.set_progress, self.action.id, self._tasks.owner, step):
                self.cancel("another operation took the instance")
        self.check()

    def check(self) -> None:
        """AbortedError when the operation must not go on."""
        if self._cancelled is not None:
            raise AbortedError(f"{self.task} of instance {self.instance.id} aborted: {self._cancelled}")

    @property
    def cancelled(self) -> bool:
        """True once it was asked to stop."""
        return self._cancelled is not None

    def cancel(self, reason: str) -> None:
        """Ask the operation to stop at its next step."""
        self._cancelled = self._cancelled or reason

    def pass_on(self, step: str, host: Choice, args: dict[str, Any], *writes: Write) -> None:
        """Leave the rest of the operation, from verb `step`, to `host`, with `writes` in the same transaction.

        host may be a function of that transaction; `writes` may still change `args`.
        """
        self.next_leg = (step, host, args, list(writes))


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
    ) -> None:
        self.db, self.driver, self.specs, self.sealer = db, driver, specs, sealer
        self.host, self.owner, self.with_groups = host, owner, with_groups
        self._passed_on = passed_on
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
            job = self._begin(context, order_id, plain=action_id is None)
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
        if action_id is None:
            return self._order_on_arrival(context, instance_id, task, step, args)
        if not self.db.run(actions.claim, action_id, instance_id, step, host=self.host, owner=self.owner):
            raise ClaimLostError(f"{step} of instance {instance_id}: order {action_id} is not to be done here now")
        return action_id

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
        with self._conducted(self._begin(context, action_id, plain=False)) as job:
            yield job

    @contextmanager
    def _conducted(self, job: Work) -> Iterator[Work]:
        try:
            yield job
            self._end(job)
        except Exception as exc:
            self._fail(job, exc)
            raise
        finally:
            with self._lock:
                del self._running[job.action.id]
            job.left.set()

    def running(self, instance_id: int | None = None) -> list[Work]:
        """The operations that this daemon is running, of one instance or all."""
        with self._lock:
            return [job for job in self._running.values() if instance_id in {None, job.instance.id}]

    def is_running(self, action: Action) -> bool:
        """True while this daemon runs that order, or is about to."""
        with self._lock:
            return action.id in self._running or action.instance_id in self._arriving

    def expire(self, job: Work) -> None:
        """Cancel an operation whose deadline passed; if it was cancelled before and hangs still, fail it without it.

        When it wakes up after all, it finds its order ended and undoes what it did.
        """
        reason = f"its deadline of {job.move.deadline_s} s passed"
        if not job.cancelled:
            job.cancel(reason)
            return
        error = AbortedError(f"{job.task} of instance {job.instance.id} aborted: {reason}")
        self.db.run(self._settle_failed, job, error, str(error), actions.FAILED)
        LOG.error("instance %d: %s hangs; failed without it", job.instance.id, job.task)

    def _order_on_arrival(
        self, context: RequestContext, instance_id: int, task: Task, step: str, args: Mapping[str, Any]
    ) -> int:
        try:
            return self.db.run(self._write_order, context, instance_id, task, step, args)
        except DuplicateRowError as exc:
            raise ClaimLostError(f"{step} of instance {instance_id}: request {context.request_id} came twice") from exc
        except RowNotFoundError as exc:
            raise InstanceNotFoundError(str(exc)) from exc
        except ConflictError as exc:
            self._record_refusal(context, instance_id, task, exc)
            raise

    def _write_order(
        self, tx: Tx, context: RequestContext, instance_id: int, task: Task, step: str, args: Mapping[str, Any]
    ) -> int:
        instance = instances.get(tx, instance_id)
        row = orders.journal_row(
            tx,
            context,
            task,
            instance_id,
            host=self.host,
            args=orders.pack(self.sealer, args),
            step=step,
            state=actions.RUNNING,
            owner=self.owner,
            attempt=1,
            message_id=context.request_id,
            started_at=utcnow(),
        )
        action_id = actions.create(tx, row)
        if instance.host not in {None, self.host} and task not in _ELSEWHERE:
            raise ConflictError(f"instance {instance_id} is on host {instance.host}, not {self.host}")
        if task is Task.DELETING:
            self._take_for_delete(tx, context, instance_id, action_id)
        else:
            orders.take(tx, context, instance_id, task)
        return action_id

    def _take_for_delete(self, tx: Tx, context: RequestContext, instance_id: int, action_id: int) -> None:
        if not orders.take_for_delete(tx, context, instance_id, keep=action_id):
            raise ClaimLostError(f"instance {instance_id} is being deleted already")

    def _record_refusal(self, context: RequestContext, instance_id: int, task: Task, exc: ConflictError) -> None:
        """A cast has nobody to answer to: the refusal stays readable in the instance's history."""
        if isinstance(exc, ClaimLostError):
            return

        def write(tx: Tx) -> None:
            ended: dict[str, Any] = {"state": actions.FAILED, "error": faults.message_of(exc), "finished_at": utcnow()}
            row = orders.journal_row(tx, context, task, instance_id, host=self.host, args="{}", **ended)
            actions.create(tx, {**row, "message_id": context.request_id})

        try:
            self.db.run(write)
        except DuplicateRowError:
            LOG.debug("instance %d: refusal of %s is recorded already", instance_id, task)

    def _begin(self, context: RequestContext, action_id: int, *, plain: bool) -> Work:
        dossier = self.db.query(work.for_action, action_id, with_groups=self.with_groups)
        if dossier.action is None:
            raise NotFoundError(f"no action {action_id}")
        job = Work(self, context, dossier, orders.unpack(self.sealer, dossier.action.args), plain=plain)
        with self._lock:
            self._running[action_id] = job
        LOG.info("instance %d: %s started", job.instance.id, job.task)
        return job

    def _end(self, job: Work) -> None:
        if job.next_leg is not None:
            self._hand_over(job)
            return
        changes = dict(job.changes)
        if job.end is not None:
            changes["vm_state"] = job.end.value
            changes.update(self._power(job))
        if job.instance.fault is not None:
            changes.setdefault("fault", None)
        if not self.db.run(self._settle, job, changes, actions.DONE):
            raise AbortedError(f"{job.task} of instance {job.instance.id} aborted: another operation took the instance")
        job.undo.forget()
        LOG.info("instance %d: %s done", job.instance.id, job.task)

    def _power(self, job: Work) -> dict[str, int]:
        """What the hypervisor says now; nothing when it does not say."""
        if job.end is Vm.DELETED or "power_state" in job.changes:
            return {}
        try:
            return {"power_state": int(self.driver.get_info(job.spec.name).power)}
        except VirtError as exc:
            LOG.warning("instance %d: no power state after %s: %s", job.instance.id, job.task, exc)
            return {}

    def _settle(self, tx: Tx, job: Work, changes: dict[str, Any], state: str) -> bool:
        won = instances.end_task(tx, job.instance.id, job.task, changes)
        if not won and actions.get(tx, job.action.id).state == state:
            return True  # this is a repetition: the commit went through, its answer was lost
        for write in job.when_done if won else []:
            write(tx)
        actions.finish(tx, job.action.id, self.owner, state if won else actions.ABORTED)
        return won

    def _hand_over(self, job: Work) -> None:
        if job.next_leg is None:
            raise AssertionError("nothing to pass on")
        step, choice, args, writes = job.next_leg

        def write(tx: Tx) -> bool:
            now = actions.get(tx, job.action.id)
            if now.state == actions.REQUESTED and now.attempt == job.action.attempt:
                return True  # this is a repetition: the commit went through, its answer was lost
            host = choice(tx) if callable(choice) else choice
            for one in writes:
                one(tx)
            packed = orders.pack(self.sealer, args)
            return actions.hand_over(tx, job.action.id, self.owner, step=step, host=host, args=packed)

        if not self.db.run(write):
            raise AbortedError(f"{job.task} of instance {job.instance.id} aborted: another operation took the instance")
        job.undo.forget()
        order = self.db.query(actions.get, job.action.id)
        LOG.info("instance %d: %s goes on with %s on %s", job.instance.id, job.task, step, order.host)
        self._passed_on(order)

    def _fail(self, job: Work, exc: Exception) -> None:
        left = job.undo.run()
        message = faults.message_of(exc) + (f"; and cleaning up failed: {'; '.join(left)}" if left else "")
        state = actions.ABORTED if isinstance(exc, AbortedError) else actions.FAILED
        try:
            self.db.run(self._settle_failed, job, exc, message, state)
        except DatabaseError:
            LOG.exception("instance %d: %s failed and cannot be recorded now; recovery will", job.instance.id, job.task)
            return
        LOG.info("instance %d: %s failed: %s", job.instance.id, job.task, message)

    def _settle_failed(self, tx: Tx, job: Work, exc: Exception, message: str, state: str) -> None:
        changes: dict[str, Any] = {"fault": faults.fault(exc, job.context.request_id), **job.failed_changes}
        if job.failed is not None:
            changes["vm_state"] = job.failed.value
        if instances.end_task(tx, job.instance.id, job.task, changes):
            for write in job.when_failed:
                write(tx)
        actions.finish(tx, job.action.id, self.owner, state, error=message, traceback=faults.traceback_of(exc))
