"""One operation while this daemon runs it: what its steps need, and what is to be written when it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from compute import orders
from compute.context import RequestContext
from compute.errors import AbortedError
from compute.sealing import Sealer
from compute.states import MOVES, Move, Task, Vm
from compute.undo import Undo
from db import actions, work
from db.instances import Instance
from db.session import Database, Tx
from db.work import Dossier
from virt.driver import ComputeDriver
from virt.spec import InstanceSpec

if TYPE_CHECKING:
    from compute.task import Tasks

PROGRESS_INTERVAL_S = 1.0
Write = Callable[[Tx], Any]
Choice = str | Callable[[Tx], str]


class DaemonStopped(BaseException):
    """The daemon stops: the operation ends here, and the next start decides about it."""


class Work:
    """One operation while this daemon runs it.

    plain: a message without an order asked for it, so no room is claimed. When it fails, `when_failed` is written, and
    then `when_clean` with `clean_changes` if every undo worked, else `when_unclean`: what may still be in use on this
    host is never given to somebody else.
    """

    def __init__(self, tasks: Tasks, context: RequestContext, dossier: Dossier, args: dict[str, Any]) -> None:
        if dossier.action is None:
            raise AssertionError("a work needs its order")
        self._tasks = tasks
        self.context, self.dossier, self.action, self.args = context, dossier, dossier.action, args
        self.plain = bool(args.get(orders.PLAIN))
        self.task = Task(dossier.action.action)
        self.undo = Undo()
        self.changes: dict[str, Any] = {}
        self.when_done: list[Write] = []
        self.when_failed: list[Write] = []
        self.when_clean: list[Write] = []
        self.when_unclean: list[Write] = []
        self.end: Vm | None = self.move.end
        self.failed: Vm | None = self.move.failed
        self.clean_changes: dict[str, Any] = {}
        self.next_leg: tuple[str, Choice, dict[str, Any], list[Write]] | None = None
        self.left = threading.Event()
        self._cancelled: str | None = None
        self.abandoned = False
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

    def learn(self, **facts: Any) -> None:
        """From now on these facts of the instance are so: `spec` follows."""
        self.dossier = replace(self.dossier, **facts)
        self.__dict__.pop("spec", None)

    def progress(self, step: str) -> None:
        """Say what comes next; at most one write a second. AbortedError when the operation must not go on."""
        self.check()
        if time.monotonic() - self._progress_at >= PROGRESS_INTERVAL_S:
            self._progress_at = time.monotonic()
            if not self._tasks.db.run(actions.set_progress, self.action.id, self._tasks.owner, step):
                self.cancel("another operation took the instance")
        self.check()

    def check(self) -> None:
        """AbortedError when the operation must not go on; DaemonStopped when it is left to the next start."""
        if self.abandoned:
            raise DaemonStopped
        if self._cancelled is not None:
            raise AbortedError(f"{self.task} of instance {self.instance.id} aborted: {self._cancelled}")

    @property
    def cancelled(self) -> bool:
        """True once it was asked to stop."""
        return self._cancelled is not None

    def cancel(self, reason: str) -> None:
        """Ask the operation to stop at its next step."""
        self._cancelled = self._cancelled or reason

    def abandon(self) -> None:
        """Stop at the next step and leave everything as it is, as a crash would."""
        self.abandoned = True

    @property
    def sealer(self) -> Sealer:
        """What keeps secrets out of the database."""
        return self._tasks.sealer

    def keep_args(self, tx: Tx, args: dict[str, Any]) -> None:
        """Write new arguments into the order; a later attempt finds these."""
        if actions.set_args(tx, self.action.id, self._tasks.owner, orders.pack(self.sealer, args)):
            self.args = args

    def pass_on(self, step: str, host: Choice, args: dict[str, Any], *writes: Write) -> None:
        """Leave the rest of the operation, from verb `step`, to `host`, with `writes` in the same transaction.

        host may be a function of that transaction; `writes` may still change `args`.
        """
        self.next_leg = (step, host, args, list(writes))
