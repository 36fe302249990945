"""The life cycle as one table: what each task may start from, where it ends, and what a failure leaves.

docs/states.md is generated from here (`python -m compute.states`), and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from virt.power_state import Power


class Vm(StrEnum):
    """What the user should see."""

    BUILDING = "building"
    ACTIVE = "active"
    STOPPED = "stopped"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    RESCUED = "rescued"
    RESIZED = "resized"
    ERROR = "error"
    DELETED = "deleted"


class Task(StrEnum):
    """What is being done."""

    SPAWNING = "spawning"
    DELETING = "deleting"
    REBOOTING = "rebooting"
    REBOOTING_HARD = "rebooting_hard"
    STARTING = "starting"
    STOPPING = "stopping"
    PAUSING = "pausing"
    UNPAUSING = "unpausing"
    SUSPENDING = "suspending"
    RESUMING = "resuming"
    RESCUING = "rescuing"
    UNRESCUING = "unrescuing"
    SNAPSHOTTING = "snapshotting"
    SETTING_PASSWORD = "setting_password"  # noqa: S105 - the name of a task
    INJECTING_FILE = "injecting_file"
    RESETTING_NETWORK = "resetting_network"
    INJECTING_NETWORK_INFO = "injecting_network_info"
    ATTACHING_VOLUME = "attaching_volume"
    DETACHING_VOLUME = "detaching_volume"
    RESIZING = "resizing"
    CONFIRMING_RESIZE = "confirming_resize"
    REVERTING_RESIZE = "reverting_resize"
    MIGRATING = "migrating"


@dataclass(frozen=True, slots=True)
class Move:
    """One row of the table.

    verb: the RPC verb that starts it. end None: the vm_state stays. failed None: it stays when the task fails.
    deadline_s: how long the whole operation may take. lockable: refused on a locked instance to non-administrators.
    """

    verb: str
    start: frozenset[Vm]
    end: Vm | None
    failed: Vm | None = None
    deadline_s: int = 600
    lockable: bool = True


_ANY = frozenset(Vm) - {Vm.DELETED}
_QUIET = frozenset({Vm.ACTIVE, Vm.STOPPED, Vm.PAUSED, Vm.SUSPENDED})


def _from(*states: Vm) -> frozenset[Vm]:
    return frozenset(states)


MOVES: Mapping[Task, Move] = {
    Task.SPAWNING: Move(
        "run_instance", _from(Vm.BUILDING), Vm.ACTIVE, failed=Vm.ERROR, deadline_s=3600, lockable=False
    ),
    Task.DELETING: Move("terminate_instance", _ANY, Vm.DELETED, failed=Vm.ERROR, deadline_s=900),
    Task.REBOOTING: Move("reboot_instance", _from(Vm.ACTIVE), Vm.ACTIVE),
    Task.REBOOTING_HARD: Move("reboot_instance", _QUIET | {Vm.ERROR}, Vm.ACTIVE),
    Task.STARTING: Move("start_instance", _from(Vm.STOPPED), Vm.ACTIVE),
    Task.STOPPING: Move("stop_instance", _from(Vm.ACTIVE, Vm.PAUSED, Vm.ERROR), Vm.STOPPED),
    Task.PAUSING: Move("pause_instance", _from(Vm.ACTIVE), Vm.PAUSED),
    Task.UNPAUSING: Move("unpause_instance", _from(Vm.PAUSED), Vm.ACTIVE),
    Task.SUSPENDING: Move("suspend_instance", _from(Vm.ACTIVE), Vm.SUSPENDED, deadline_s=3600),
    Task.RESUMING: Move("resume_instance", _from(Vm.SUSPENDED), Vm.ACTIVE, deadline_s=3600),
    Task.RESCUING: Move("rescue_instance", _from(Vm.ACTIVE, Vm.STOPPED, Vm.ERROR), Vm.RESCUED, deadline_s=1800),
    Task.UNRESCUING: Move("unrescue_instance", _from(Vm.RESCUED), Vm.ACTIVE),
    Task.SNAPSHOTTING: Move("snapshot_instance", _QUIET, None, deadline_s=7200, lockable=False),
    Task.SETTING_PASSWORD: Move("set_admin_password", _from(Vm.ACTIVE), None),
    Task.INJECTING_FILE: Move("inject_file", _from(Vm.ACTIVE), None),
    Task.RESETTING_NETWORK: Move("reset_network", _from(Vm.ACTIVE), None),
    Task.INJECTING_NETWORK_INFO: Move("inject_network_info", _QUIET, None),
    Task.ATTACHING_VOLUME: Move("attach_volume", _from(Vm.ACTIVE, Vm.STOPPED, Vm.PAUSED), None),
    Task.DETACHING_VOLUME: Move("detach_volume", _from(Vm.ACTIVE, Vm.STOPPED, Vm.PAUSED, Vm.ERROR), None),
    Task.RESIZING: Move("prep_resize", _from(Vm.ACTIVE, Vm.STOPPED), Vm.RESIZED, deadline_s=7200),
    Task.CONFIRMING_RESIZE: Move("confirm_resize", _from(Vm.RESIZED), Vm.ACTIVE),
    Task.REVERTING_RESIZE: Move("revert_resize", _from(Vm.RESIZED), Vm.ACTIVE, failed=Vm.ERROR, deadline_s=1800),
    Task.MIGRATING: Move("live_migration", _from(Vm.ACTIVE), Vm.ACTIVE, deadline_s=7200, lockable=False),
}

ACTIONS: Mapping[str, Task] = {task.value: task for task in Task}

FOLLOWS: Mapping[tuple[Vm, Power], Vm] = {
    (Vm.ACTIVE, Power.SHUTDOWN): Vm.STOPPED,
    (Vm.ACTIVE, Power.SHUTOFF): Vm.STOPPED,
    (Vm.ACTIVE, Power.CRASHED): Vm.STOPPED,
    (Vm.ACTIVE, Power.PAUSED): Vm.PAUSED,
    (Vm.ACTIVE, Power.SUSPENDED): Vm.SUSPENDED,
    (Vm.STOPPED, Power.RUNNING): Vm.ACTIVE,
    (Vm.STOPPED, Power.PAUSED): Vm.PAUSED,
    (Vm.PAUSED, Power.RUNNING): Vm.ACTIVE,
    (Vm.PAUSED, Power.SHUTDOWN): Vm.STOPPED,
    (Vm.PAUSED, Power.SHUTOFF): Vm.STOPPED,
    (Vm.SUSPENDED, Power.RUNNING): Vm.ACTIVE,
    (Vm.SUSPENDED, Power.SHUTDOWN): Vm.STOPPED,
    (Vm.SUSPENDED, Power.SHUTOFF): Vm.STOPPED,
}
"""How the record follows a Known fact when no task runs; whatever is not here keeps its vm_state."""


def follow(vm_state: str, power: Power) -> Vm:
    """The vm_state that an idle instance has, given what its hypervisor said."""
    return FOLLOWS.get((Vm(vm_state), power), Vm(vm_state))


def as_markdown() -> str:
    """docs/states.md: the diagram, the table of moves, and how records follow facts."""
    lines = ["# States", "", "Generated by `python -m compute.states`; change `compute/states.py`, not this file.", ""]
    lines += ["```mermaid", "stateDiagram-v2", "    [*] --> building"]
    lines += sorted(
        f"    {start} --> {move.end}: {task}"
        for task, move in MOVES.items()
        for start in move.start
        if move.end is not None and task is not Task.DELETING
    )
    lines += ["    error --> deleted: deleting (from every state)", "    deleted --> [*]", "```", ""]
    lines += ["| task | verb | from | to | if it fails | deadline (s) | refused when locked |", "|" + "---|" * 7]
    for task, move in MOVES.items():
        start = "any" if move.start == _ANY else ", ".join(sorted(move.start))
        cells = [task, move.verb, start, move.end or "stays", move.failed or "stays", str(move.deadline_s)]
        lines.append("| " + " | ".join([*cells, "yes" if move.lockable else "no"]) + " |")
    lines += ["", "When no task runs, the record follows what the hypervisor says:", ""]
    lines += ["| vm_state | power_state | becomes |", "|---|---|---|"]
    lines += [f"| {vm} | {power.name} | {then} |" for (vm, power), then in FOLLOWS.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(as_markdown(), end="")  # noqa: T201 - this is what the command is for
