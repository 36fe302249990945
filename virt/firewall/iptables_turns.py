"""Changes take turns, and those that wait for their turn are made together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from virt.errors import FirewallError

Change = TypeVar("Change")


class _Ticket(Generic[Change]):
    def __init__(self, change: Change) -> None:
        self.change = change
        self.done = False
        self.error: Exception | None = None


class Turns(Generic[Change]):
    """Makes changes with `make`, one batch at a time: what comes while a batch is made is the next batch.

    When a batch of several fails, each of it is made alone, so that each caller gets the error of its own change.
    """

    def __init__(self, make: Callable[[Sequence[Change]], None]) -> None:
        self._make = make
        self._turn, self._queue = threading.Lock(), threading.Lock()
        self._waiting: list[_Ticket[Change]] = []

    def take(self, change: Change) -> None:
        """Make a change; it is made, with others perhaps, on return. Raises what `make` raises of it."""
        ticket = _Ticket(change)
        with self._queue:
            self._waiting.append(ticket)
        with self._turn:
            if not ticket.done:
                with self._queue:
                    batch, self._waiting = self._waiting, []
                self._settle(batch)
        if ticket.error is not None:
            raise ticket.error
        if not ticket.done:
            raise FirewallError("a change of packet filters was cut off by the end of the one that made it")

    def _settle(self, batch: list[_Ticket[Change]]) -> None:
        try:
            self._make([ticket.change for ticket in batch])
        except Exception as exc:  # noqa: BLE001 - whoever asked for the change gets it
            if len(batch) > 1:
                for ticket in batch:
                    self._settle([ticket])
                return
            batch[0].error = exc
        for ticket in batch:
            ticket.done = True
