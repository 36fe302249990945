"""Write work orders: take the instance and write the journal row in one transaction, or say exactly why not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from compute.context import RequestContext
from compute.errors import InstanceBusyError, InstanceLockedError, InstanceNotFoundError, InvalidStateError
from compute.sealing import Sealer
from compute.states import MOVES, Move, Task, Vm
from db import actions, instances
from db.actions import Action
from db.errors import RowNotFoundError
from db.instances import Instance
from db.session import Tx

SECRET_ARGS = frozenset({"new_pass", "injected_files", "file_contents"})
PLAIN = "plain"  # argument of an order that a message without one brought
SCHEDULING = "scheduling"  # what a plain scheduler leaves in task_state before it casts run_instance
Also = Callable[[Tx, Instance], Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bell:
    """What ringing for an order needs: its id, its instance, whose turn it is and with which verb.

    host None: the scheduler's turn. args: the verb's arguments as they were given, secrets among them.
    """

    id: int
    instance_id: int
    host: str | None
    step: str
    args: Mapping[str, Any]


def message_key(sealer: Sealer, request_id: str, args: Mapping[str, Any]) -> str:
    """What a plain cast is known by when it comes again: its request id, and with arguments a digest of both."""
    return sealer.digest([request_id, dict(args)]) if args else request_id


def bell(sealer: Sealer, action: Action) -> Bell:
    """The bell of an order in the journal."""
    args = unpack(sealer, action.args)
    return Bell(id=action.id, instance_id=action.instance_id, host=action.host, step=action.step, args=args)


def take(tx: Tx, context: RequestContext, instance_id: int, task: Task) -> None:
    """Take a free instance for `task`, or raise why it cannot be: not found, locked, busy with X, or wrong state."""
    move = MOVES[task]
    taken = instances.begin_task(
        tx,
        instance_id,
        task,
        move.start,
        also_locked=context.is_admin or not move.lockable,
        replaces=SCHEDULING if task is Task.SPAWNING else "",
    )
    if not taken:
        _explain(tx, context, instance_id, task, move)


def _explain(tx: Tx, context: RequestContext, instance_id: int, task: Task, move: Move) -> None:
    try:
        instance = instances.get(tx, instance_id)
    except RowNotFoundError as exc:
        raise InstanceNotFoundError(f"no instance {instance_id}") from exc
    if instance.locked and move.lockable and not context.is_admin:
        raise locked(instance_id)
    if instance.task_state is not None and not (task is Task.SPAWNING and instance.task_state == SCHEDULING):
        raise InstanceBusyError(f"instance {instance_id} is busy: {instance.task_state}")
    if instance.vm_state not in move.start:
        raise wrong_state(instance, task)
    raise InstanceBusyError(f"instance {instance_id} is busy: another operation had it at this moment")


def wrong_state(instance: Instance, task: Task) -> InvalidStateError:
    """The error for a task that the instance's vm_state forbids."""
    needed = " or ".join(sorted(MOVES[task].start))
    verb = MOVES[task].verb
    return InvalidStateError(f"instance {instance.id} is {instance.vm_state}: {verb} needs it {needed}")


def locked(instance_id: int) -> InstanceLockedError:
    """The error for a caller who is no administrator."""
    return InstanceLockedError(f"instance {instance_id} is locked: only an administrator may act on it")


def take_for_delete(tx: Tx, context: RequestContext, instance: Instance, *, keep: int | None = None) -> bool:
    """Take an instance, read in `tx`, for deleting whatever runs on it, aborting that; False when it is being deleted.

    keep: the order of the delete itself, where it is written before.
    """
    if instance.locked and not context.is_admin:
        raise locked(instance.id)
    if not instances.override_task(tx, instance.id, Task.DELETING):
        return False
    actions.abort_open(tx, instance.id, "a delete outranked it", keep=keep)
    return True


def accept(
    tx: Tx,
    sealer: Sealer,
    context: RequestContext,
    instance_id: int,
    task: Task,
    *,
    op_id: str,
    host: str | None = None,
    args: Mapping[str, Any] | None = None,
    also: Also | None = None,
) -> Bell:
    """Take the instance and write its order for `host` (its own when None): all or nothing.

    `also` writes more once the instance is taken, and adds to the arguments; a `host` among them goes before `host`.
    op_id tells a repetition after a lost commit from a second request.
    """
    try:
        instance = instances.get(tx, instance_id)
    except RowNotFoundError as exc:
        raise InstanceNotFoundError(f"no instance {instance_id}") from exc
    if task is not Task.DELETING:
        take(tx, context, instance_id, task)
    every = {**(args or {}), **(also(tx, instance) if also is not None else {})}
    where = every.pop("host", host) or instance.host
    if where is None and task is not Task.DELETING:
        raise InvalidStateError(f"instance {instance_id} is {instance.vm_state} and on no host")
    row = journal_row(tx, context, task, instance_id, host=where, args=pack(sealer, every), message_id=op_id)
    action_id = actions.create(tx, row)
    if task is Task.DELETING and not take_for_delete(tx, context, instance, keep=action_id):
        raise InstanceBusyError(f"instance {instance_id} is busy: {Task.DELETING}")
    return Bell(id=action_id, instance_id=instance_id, host=where, step=MOVES[task].verb, args=every)


def journal_row(
    tx: Tx,
    context: RequestContext,
    task: Task,
    instance_id: int,
    *,
    host: str | None,
    args: str,
    step: str | None = None,
    **also: Any,
) -> dict[str, Any]:
    """The values of a journal row for `task`; `also` overrides (state, owner, message_id...)."""
    return {
        "instance_id": instance_id,
        "action": task.value,
        "step": step or MOVES[task].verb,
        "request_id": context.request_id,
        "user_id": context.user_id,
        "project_id": context.project_id,
        "args": args,
        "host": host,
        "state": actions.REQUESTED,
        "deadline": actions.seconds_from_now(tx, MOVES[task].deadline_s),
        **also,
    }


def pack(sealer: Sealer, args: Mapping[str, Any]) -> str:
    """Verb arguments as the journal keeps them: JSON, sealed as a whole when there is a secret among them."""
    if any(args.get(name) for name in SECRET_ARGS):
        return json.dumps({"sealed": sealer.seal(dict(args))})
    return json.dumps(dict(args), sort_keys=True) if args else "{}"


def unpack(sealer: Sealer, text: str) -> dict[str, Any]:
    """What `pack` was given."""
    args: dict[str, Any] = json.loads(text)
    return dict(sealer.open(args["sealed"])) if "sealed" in args else args


def failed_state(task: Task, vm_state: str) -> Vm:
    """The vm_state that a failure of `task` leaves."""
    return MOVES[task].failed or Vm(vm_state)
