"""What to do with an operation found half done: decided from task, step and what the hypervisor says, never assumed.

Found half done means: the journal says `running`, and no daemon is running it. An answer is one of
    again    put the order back; its steps are idempotent, so doing it again ends it
    done     what it was for is so; only the record is missing
    failed   it cannot be known or repeated; the reason goes into the fault
An Unknown hypervisor gives no answer: the order waits until the hypervisor speaks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from compute.context import RequestContext
from compute.errors import AbortedError, ComputeError
from compute.host import Host
from compute.ops import lifecycle, migrate, snapshot, volumes
from compute.states import Task, Vm
from compute.task import Work
from db import actions, resizes
from db.actions import Action
from db.session import utcnow
from virt.errors import GuestNotFoundError
from virt.power_state import Power

LOG = logging.getLogger(__name__)
MAX_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """again, done or failed, and for a failure why."""

    word: str
    reason: str = ""


AGAIN, DONE = Answer("again"), Answer("done")
Fact = Power | None  # None: the hypervisor answered, and does not know the guest
Rule = Callable[[Fact], Answer]


def _again(_fact: Fact) -> Answer:
    return AGAIN


def _spawning(fact: Fact) -> Answer:
    """A guest that runs was started as the last step; anything less is built again from nothing."""
    return DONE if fact is Power.RUNNING else AGAIN


def _rebooting(fact: Fact) -> Answer:
    """Off: it was cut between stop and start, so start it. On: nobody knows which side of the reboot this is."""
    if fact is not None and fact.is_on:
        return Answer("failed", "the daemon stopped during the reboot; the guest runs, rebooted or not")
    return AGAIN


def _snapshotting(_fact: Fact) -> Answer:
    return Answer("failed", "the daemon stopped during the snapshot; nothing of it is kept")


def _migrating(_fact: Fact) -> Answer:
    return Answer("decide")


RULES: Mapping[Task, Rule] = {
    **dict.fromkeys(Task, _again),
    Task.SPAWNING: _spawning,
    Task.REBOOTING: _rebooting,
    Task.REBOOTING_HARD: _rebooting,
    Task.SNAPSHOTTING: _snapshotting,
    Task.MIGRATING: _migrating,
}


class Recovery:
    """Settles what earlier daemons, or a database that was away, left behind on this host."""

    def __init__(self, host: Host, ring: Callable[[Action], None]) -> None:
        """ring: have this host do a requested order, as if its message had come."""
        self._host, self._ring = host, ring

    def run(self, min_age_s: float = 0.0) -> int:
        """Look at every open order of this host once; how many were acted on.

        Requested orders are rung for when nobody has for `min_age_s`; running ones that nobody runs are settled.
        """
        host = self._host
        acted = 0
        for action in host.db.query(actions.waiting_longer_than, host.settings.host, min_age_s):
            if action.state == actions.REQUESTED:
                self._ring(action)
                acted += 1
            elif not host.tasks.is_running(action):
                acted += self._settle_guarded(action)
        return acted

    def _settle_guarded(self, action: Action) -> bool:
        try:
            self.settle(action)
        except Exception as exc:
            if not getattr(exc, "expected", False):
                raise
            LOG.warning("order %d (%s of instance %d) waits: %s", action.id, action.action, action.instance_id, exc)
            return False
        return True

    def settle(self, action: Action) -> None:
        """Decide about one order that nobody runs. Raises what the hypervisor raises when it does not answer."""
        host = self._host
        task = Task(action.action)
        answer = RULES[task](self._fact(action.instance_id)) if action.attempt < MAX_ATTEMPTS else _too_often(action)
        if not host.db.run(actions.adopt, action, host.tasks.owner):
            return
        LOG.info("instance %d: %s was interrupted: %s %s", action.instance_id, task, answer.word, answer.reason)
        if answer.word == "again":
            self._again(action, task)
        else:
            self._conclude(action, task, answer)

    def _fact(self, instance_id: int) -> Fact:
        try:
            return self._host.driver.get_info(self._host.specs.name_of(instance_id)).power
        except GuestNotFoundError:
            return None

    def _again(self, action: Action, task: Task) -> None:
        host = self._host
        if task is Task.SPAWNING:
            host.driver.destroy(host.spec_of(action.instance_id))
        back = host.db.run(
            actions.hand_over,
            action.id,
            host.tasks.owner,
            step=action.step,
            host=host.settings.host,
            args=action.args,
        )
        if back:
            self._ring(host.db.query(actions.get, action.id))

    def _conclude(self, action: Action, task: Task, answer: Answer) -> None:
        """End the order inside the same claim that a verb would hold, so that its records are written alike."""
        context = context_of(action)
        try:
            with self._host.tasks.resume(context, action.id) as work:
                _CONCLUDE.get(task, _nothing)(self._host, work)
                if answer.word == "failed":
                    raise AbortedError(answer.reason)
        except ComputeError as exc:
            LOG.info("instance %d: %s", action.instance_id, exc)


def _too_often(action: Action) -> Answer:
    return Answer("failed", f"interrupted {action.attempt} times; given up")


def _nothing(_host: Host, _work: Work) -> None:
    """Records of the instance alone."""


def _conclude_spawn(host: Host, work: Work) -> None:
    lifecycle.clean_up_on_failure(work)
    work.undo.callback(host.driver.destroy, work.spec)
    work.changes.update(launched_at=utcnow(), launched_on=host.settings.host, host=host.settings.host)


def _conclude_snapshot(_host: Host, work: Work) -> None:
    work.when_failed.append(lambda tx: snapshot.discard(tx, work.args["image_id"]))


def _conclude_volume(_host: Host, work: Work) -> None:
    volumes.give_back(work)


def _conclude_resize(_host: Host, work: Work) -> None:
    work.failed = Vm.ERROR  # it is off, and its disks may be on either host: an operator must look


def _conclude_migration(host: Host, work: Work) -> None:
    move = host.db.query(resizes.latest, work.instance.id)
    if move is None or move.kind != "live-migration" or move.status in {"done", "error"}:
        raise AbortedError("the daemon stopped before the migration began")
    work.when_failed.append(lambda tx: migrate.give_back(tx, work, move))
    migrate.decide(work, move, host.rpc, AbortedError("the daemon stopped during the migration"))


_CONCLUDE: Mapping[Task, Callable[[Host, Work], None]] = {
    Task.SPAWNING: _conclude_spawn,
    Task.SNAPSHOTTING: _conclude_snapshot,
    Task.ATTACHING_VOLUME: _conclude_volume,
    Task.DETACHING_VOLUME: _conclude_volume,
    Task.RESIZING: _conclude_resize,
    Task.MIGRATING: _conclude_migration,
}


def context_of(action: Action) -> RequestContext:
    """The context an order was accepted in; what it may do was decided then."""
    return RequestContext(
        user_id=action.user_id, project_id=action.project_id, is_admin=True, request_id=action.request_id
    )
