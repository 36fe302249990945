"""What a hypervisor last said about a guest (codes of Nova 2011.2, 0-6 equal to libvirt's virDomainState)."""

from __future__ import annotations

from enum import IntEnum


class Power(IntEnum):
    """A guest's power state; the integer is what the database and RPC callers see."""

    NOSTATE = 0
    RUNNING = 1
    BLOCKED = 2
    PAUSED = 3
    SHUTDOWN = 4
    SHUTOFF = 5
    CRASHED = 6
    SUSPENDED = 7
    FAILED = 8

    @property
    def label(self) -> str:
        """The word that 2011.2 printed for this code."""
        return _LABELS[self]

    @property
    def is_on(self) -> bool:
        """True while the guest occupies CPU or memory as a live domain."""
        return self in {Power.RUNNING, Power.BLOCKED, Power.PAUSED}


_LABELS = {
    Power.NOSTATE: "pending",
    Power.RUNNING: "running",
    Power.BLOCKED: "blocked",
    Power.PAUSED: "paused",
    Power.SHUTDOWN: "shutdown",
    Power.SHUTOFF: "shutdown",
    Power.CRASHED: "crashed",
    Power.SUSPENDED: "suspended",
    Power.FAILED: "failed to spawn",
}
