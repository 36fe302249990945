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
from functools import partial

from compute import expiry, faults
from compute.cleaning import clean_up
from compute.context import RequestContext
from compute.errors import AbortedError, ComputeError
from compute.host import Host
from compute.lanes import Lane
from compute.ops import lifecycle, migrate, snapshot, volumes
from compute.states import Task, Vm
from compute.work import Work
from db import actions, resizes
from db.actions import Action
from db.cleaning import CLEANING
from db.session import utcnow
from virt.errors import GuestNotFoundError, VirtError
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

    def __init__(self, host: Host, ring: Callable[[Action], None], lane: Lane) -> None:
        """ring: have this host do a requested order, as if its message had come. lane: where orders are settled."""
        self._host, self._ring, self._lane = host, ring, lane

    def run(self, min_age_s: float = 0.0) -> int:
        """Look at every open order of this host once; how many are acted on.

        Requested orders are rung for when nobody has for `min_age_s`; running ones that nobody runs are settled, each
        by itself, so that one that cannot be settled holds up no other.
        """
        host = self._host
        found = host.db.query(actions.waiting_longer_than, host.settings.host, min_age_s)
        expired = set(host.db.query(actions.expired_running, host.settings.host)) if found else set()
        acted = 0
        for action in found:
            if action.action == CLEANING:
                self._lane.submit((action.id, "clean"), partial(self._guarded, partial(clean_up, host), action))
            elif action.state == actions.REQUESTED:
                self._lane.submit((action.id, "ring"), partial(self._guarded, self._ring, action))
            elif not host.tasks.is_running(action):
                settle = self._give_up if action.id in expired else self.settle
                self._lane.submit(action.id, partial(self._guarded, settle, action))
            else:
                continue
            acted += 1
        return acted

    @staticmethod
    def _guarded(step: Callable[[Action], None], action: Action) -> None:
        try:
            step(action)
        except Exception as exc:  # the order stays as it is, and the next round or its deadline deals with it
            level = logging.WARNING if getattr(exc, "expected", False) else logging.ERROR
            trace = level == logging.ERROR
            words = "order %d (%s of instance %d) waits: %s"
            LOG.log(level, words, action.id, action.action, action.instance_id, exc, exc_info=trace)

    def settle(self, action: Action) -> None:
        """Decide about one order that nobody runs. Raises what a hypervisor raises when it does not answer."""
        host = self._host
        task = Task(action.action)
        if host.tasks.is_running(action):
            return
        answer = _too_often(action) if action.attempt >= MAX_ATTEMPTS else self._answer(action, task)
        if not host.db.run(actions.adopt, action, host.tasks.owner):
            return
        LOG.info("instance %d: %s was interrupted: %s %s", action.instance_id, task, answer.word, answer.reason)
        if answer.word == "again":
            self._again(action, task)
        else:
            self._conclude(action, task, answer)

    def _answer(self, action: Action, task: Task) -> Answer:
        answer = RULES[task](self._fact(action.instance_id))
        if task is Task.MIGRATING:
            move = self._host.db.query(resizes.latest, action.instance_id)
            if move is not None:  # raises when the destination does not speak: then nobody knows yet
                self._host.rpc.get_power_state(context_of(action), move.dest_compute, action.instance_id)
        return answer

    def _give_up(self, action: Action) -> None:
        """The deadline of an interrupted order has passed while its hypervisor said nothing."""
        if self._host.db.run(actions.adopt, action, self._host.tasks.owner):
            reason = Answer("failed", "its deadline passed, and the daemon that ran it is gone")
            self._conclude(action, Task(action.action), reason)

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
        except (ComputeError, VirtError) as exc:
            LOG.info("instance %d: %s", action.instance_id, exc)
            self._host.db.run(expiry.fail_broken, action.id, self._host.tasks.owner, faults.message_of(exc))


def _too_often(action: Action) -> Answer:
    return Answer("failed", f"interrupted {action.attempt} times; given up")


def _nothing(_host: Host, _work: Work) -> None:
    """Records of the instance alone."""


def _conclude_spawn(host: Host, work: Work) -> None:
    lifecycle.clean_up_on_failure(work)
    volumes.have_from_the_start(work)
    work.undo.callback(host.driver.destroy, work.spec)
    work.changes.update(launched_at=utcnow(), launched_on=host.settings.host, host=host.settings.host)


def _conclude_snapshot(host: Host, work: Work) -> None:
    snapshot.give_up(work, host.settings)


def _conclude_volume(host: Host, work: Work) -> None:
    volumes.give_back(work, host.specs)


def _conclude_resize(_host: Host, work: Work) -> None:
    work.failed = Vm.ERROR  # it is off, and its disks may be on either host: an operator must look


def _conclude_migration(host: Host, work: Work) -> None:
    move = host.db.query(resizes.latest, work.instance.id)
    if move is None or move.kind != "live-migration" or move.status in {"done", "error"}:
        raise AbortedError("the daemon stopped before the migration began")
    work.when_failed.append(lambda tx: migrate.give_back(tx, work.instance, move))
    work.undo.callback(host.rpc.rollback_live_migration, work.context, move.dest_compute, work.instance.id)
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
