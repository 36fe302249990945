"""Finds out that a daemon lives and no longer hears: it casts to itself, and looks whether that arrived.

A consumer that the broker dropped, a connection that swallows what is sent: from inside both look like a quiet night.
What counts is that a message arrives, not that somebody has time to answer it: a busy daemon is not deaf.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

LOG = logging.getLogger(__name__)
DEAF_AFTER_S = 45.0


class Loopback:
    """One round of `check` after another, by a timer."""

    def __init__(
        self,
        ring: Callable[[], bool],
        heard_at: Callable[[], float],
        deaf: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """ring: cast to ourselves; False when there is no broker that could lose it. deaf: called once if it is so."""
        self._ring, self._heard_at, self._deaf, self._clock = ring, heard_at, deaf, clock
        self._unheard_since: float | None = None

    def check(self) -> None:
        """See whether the last cast arrived, and send the next."""
        since, now = self._unheard_since, self._clock()
        if since is not None and self._heard_at() < since and now - since >= DEAF_AFTER_S:
            LOG.error("nothing that this daemon sends to itself has arrived for %.0f s; it ends", now - since)
            self._deaf()
            return
        if not self._ring():
            self._unheard_since = None
        elif since is None or self._heard_at() >= since:
            self._unheard_since = now
