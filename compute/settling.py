"""How operations end: instance and journal in one transaction, both or neither.

An order that is not this daemon's any more (a delete or a deadline ended it, another start took it over) is never
written. A database that is away at the end does not undo what was done: the end is kept and written when it is back.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from compute import faults, orders
from compute.errors import AbortedError, UnreachableError
from compute.sealing import Sealer
from compute.states import Task, Vm
from compute.work import DaemonStopped, Work
from db import actions, instances
from db.actions import Action
from db.errors import DatabaseError, DatabaseUnreachableError
from db.session import Database, Tx
from virt.driver import ComputeDriver
from virt.errors import VirtError

LOG = logging.getLogger(__name__)
PassedOn = Callable[[Action], None]


class _NotOursError(Exception):
    """The order has been ended or taken over: the transaction must not be committed."""


class Settling:
    """Ends this daemon's operations."""

    def __init__(self, *, db: Database, driver: ComputeDriver, sealer: Sealer, owner: str, passed_on: PassedOn) -> None:
        self._db, self._driver, self._sealer, self._owner = db, driver, sealer, owner
        self._passed_on = passed_on
        self._kept: dict[int, Callable[[], None]] = {}
        self._lock = threading.Lock()

    def end(self, job: Work) -> None:
        """The body went well: record it or pass the order on. AbortedError, all undone, when it was not ours to end."""
        if job.abandoned:
            raise DaemonStopped
        if job.next_leg is not None:
            self._now_or_later(job, partial(self._hand_over, job))
            return
        changes = dict(job.changes)
        if job.end is not None:
            changes["vm_state"] = job.end.value
            changes.update(self._power(job))
        if job.instance.fault is not None:
            changes.setdefault("fault", None)
        self._now_or_later(job, partial(self._done, job, changes))

    def fail(self, job: Work, exc: Exception) -> None:
        """The body raised: undo what it did and record why. An abandoned one is left as it is."""
        if job.abandoned:
            return
        left = job.undo.run()
        message = faults.message_of(exc) + (f"; and cleaning up failed: {'; '.join(left)}" if left else "")
        state = actions.ABORTED if isinstance(exc, AbortedError) else actions.FAILED
        try:
            self._failed(job, exc, message, state, clean=not left)
        except DatabaseUnreachableError:
            LOG.warning("instance %d: failure of %s is recorded when the database is back", job.instance.id, job.task)
            self._keep(job, partial(self._failed, job, exc, message, state, clean=not left))
        except DatabaseError as refused:
            LOG.exception("instance %d: %s failed, and with it what it had to write then", job.instance.id, job.task)
            self._fail_alone(job, exc, f"{message}; and its end could not be written whole: {refused}", state)

    def _fail_alone(self, job: Work, exc: Exception, message: str, state: str) -> None:
        """Record a failure without what was to be written with it, which the database refuses and would again."""
        try:
            self._failed(job, exc, message, state, clean=None)
        except DatabaseError:
            LOG.exception("instance %d: the failure of %s cannot be recorded; recovery will", job.instance.id, job.task)

    def fail_without(self, job: Work, reason: str) -> None:
        """Record that an operation hangs, without it. What it holds is kept, because it may be in use."""
        error = AbortedError(f"{job.task} of instance {job.instance.id} aborted: {reason}")
        try:
            self._db.run(self._write_failed, job, error, str(error), actions.FAILED, clean=False)
        except _NotOursError:
            return
        LOG.error("instance %d: %s hangs; failed without it", job.instance.id, job.task)

    def is_kept(self, action_id: int) -> bool:
        """True while an end waits for the database."""
        with self._lock:
            return action_id in self._kept

    def write_kept(self) -> None:
        """Write the ends that a database that was away has not taken."""
        with self._lock:
            kept = list(self._kept.items())
        for action_id, write in kept:
            try:
                write()
            except DatabaseUnreachableError:
                return
            except AbortedError as exc:
                LOG.info("%s", exc)
            except Exception:  # it has been recorded as a failure; the others must be written all the same
                LOG.exception("order %d", action_id)
            with self._lock:
                del self._kept[action_id]

    # -- done ---------------------------------------------------------------------------------------------------------

    def _now_or_later(self, job: Work, write: Callable[[], None]) -> None:
        try:
            self._or_undo(job, write)
        except DatabaseUnreachableError as exc:
            LOG.warning("instance %d: the end of %s is recorded when the database is back", job.instance.id, job.task)
            self._keep(job, partial(self._or_undo, job, write))
            raise UnreachableError(f"{job.task} of instance {job.instance.id} is over, but not recorded yet") from exc

    def _or_undo(self, job: Work, write: Callable[[], None]) -> None:
        try:
            write()
        except _NotOursError:
            self._lost(job)
        except DatabaseUnreachableError:
            raise
        except Exception as exc:
            self.fail(job, exc)
            raise

    def _keep(self, job: Work, write: Callable[[], None]) -> None:
        with self._lock:
            self._kept[job.action.id] = write

    def _lost(self, job: Work) -> None:
        """Somebody else wrote the order's end or took it over, unless that was us and only the answer was lost."""
        order = self._db.query(actions.get, job.action.id)
        if order.state in {actions.FAILED, actions.ABORTED}:
            error = AbortedError(f"{job.task} of instance {job.instance.id} aborted: {order.error}")
            self.fail(job, error)
            raise error
        job.undo.forget()
        LOG.info("instance %d: %s is %s already", job.instance.id, job.task, order.state)

    def _power(self, job: Work) -> dict[str, int]:
        """What the hypervisor says now; nothing when it does not say."""
        if job.end is Vm.DELETED or "power_state" in job.changes:
            return {}
        try:
            return {"power_state": int(self._driver.get_info(job.spec.name).power)}
        except VirtError as exc:
            LOG.warning("instance %d: no power state after %s: %s", job.instance.id, job.task, exc)
            return {}

    def _done(self, job: Work, changes: dict[str, Any]) -> None:
        self._db.run(self._write_done, job, changes)
        job.undo.forget()
        LOG.info("instance %d: %s done", job.instance.id, job.task)

    def _write_done(self, tx: Tx, job: Work, changes: dict[str, Any]) -> None:
        if not instances.end_task(tx, job.instance.id, job.task, changes):
            raise _NotOursError
        for write in job.when_done:
            write(tx)
        if not actions.finish(tx, job.action.id, self._owner, actions.DONE):
            raise _NotOursError

    def _hand_over(self, job: Work) -> None:
        if job.next_leg is None:
            raise AssertionError("nothing to pass on")
        self._db.run(self._write_leg, job, *job.next_leg)
        job.undo.forget()
        order = self._db.query(actions.get, job.action.id)
        LOG.info("instance %d: %s goes on with %s on %s", job.instance.id, job.task, order.step, order.host)
        self._passed_on(order)

    def _write_leg(self, tx: Tx, job: Work, step: str, choice: Any, args: dict[str, Any], writes: list[Any]) -> None:
        if not actions.is_held(tx, job.action.id, self._owner, job.action.attempt):
            raise _NotOursError
        host = choice(tx) if callable(choice) else choice
        for write in writes:
            write(tx)
        packed = orders.pack(self._sealer, args)
        if not actions.hand_over(tx, job.action.id, self._owner, step=step, host=host, args=packed):
            raise _NotOursError

    # -- failed -------------------------------------------------------------------------------------------------------

    def _failed(self, job: Work, exc: Exception, message: str, state: str, *, clean: bool | None) -> None:
        try:
            self._db.run(self._write_failed, job, exc, message, state, clean=clean)
        except _NotOursError:
            LOG.info("instance %d: %s was ended before: %s", job.instance.id, job.task, message)
            self._bury(job)
            return
        LOG.info("instance %d: %s failed: %s", job.instance.id, job.task, message)

    def _write_failed(self, tx: Tx, job: Work, exc: Exception, message: str, state: str, *, clean: bool | None) -> None:
        """clean: True when nothing is left that the operation held; None: write nothing of what it held."""
        changes: dict[str, Any] = {"fault": faults.fault(exc, job.context.request_id, message)}
        if job.failed is not None:
            changes["vm_state"] = job.failed.value
        if clean:
            changes.update(job.clean_changes)
        if instances.end_task(tx, job.instance.id, job.task, changes) and clean is not None:
            for write in [*job.when_failed, *(job.when_clean if clean else job.when_unclean)]:
                write(tx)
        trace = faults.traceback_of(exc)
        if not actions.finish(tx, job.action.id, self._owner, state, error=message, traceback=trace):
            raise _NotOursError

    def _bury(self, job: Work) -> None:
        """A straggler may have made again what a delete removed: remove it again."""
        row = self._db.query(instances.get, job.instance.id, read_deleted=True)
        if job.task is Task.DELETING or not (row.deleted or row.task_state == Task.DELETING):
            return
        try:
            self._driver.destroy(job.spec)
        except VirtError as exc:
            LOG.error("instance %d: what %s left cannot be removed: %s", job.instance.id, job.task, exc)
