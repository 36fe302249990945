"""Freeze and save instances."""

from __future__ import annotations

from compute.work import Work
from virt.driver import Pausable, Suspendable, require


def pause(work: Work) -> None:
    """Freeze the guest in memory."""
    require(work.driver, Pausable).pause(work.spec)


def unpause(work: Work) -> None:
    """Let it go on."""
    require(work.driver, Pausable).unpause(work.spec)


def suspend(work: Work) -> None:
    """Save the guest's memory to disk and stop it."""
    require(work.driver, Suspendable).suspend(work.spec)


def resume(work: Work) -> None:
    """Go on from the saved memory."""
    require(work.driver, Suspendable).resume(work.spec)
