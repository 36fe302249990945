"""Packet filters that somebody removes are mended at once; the audit by the clock is the backstop."""

from __future__ import annotations

import logging
import select
import socket
import threading
from collections.abc import Callable

from db.errors import DatabaseError
from virt.firewall.removals import Removals

LOG = logging.getLogger(__name__)
PAUSE_S = 1.0


class FilterWatch:
    """Calls `mend` when filters were removed, at most once in `pause_s`; a failure is logged."""

    def __init__(
        self, mend: Callable[[], object], *, pause_s: float = PAUSE_S, listen: Callable[[], Removals] | None = None
    ) -> None:
        self._mend, self._pause_s, self._listen = mend, pause_s, listen or Removals
        self._reader, self._writer = socket.socketpair()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="removed packet filters", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End after the mending that runs, if any."""
        self._stop.set()
        self._writer.close()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _loop(self) -> None:
        with self._reader:
            try:
                removals = self._listen()
            except OSError as exc:
                LOG.warning("packet filters that are removed are found by the next audit: %s", exc)
                return
            try:
                self._hear(removals)
            except OSError as exc:
                LOG.error("packet filters that are removed are found by the next audit from now on: %s", exc)
            finally:
                removals.close()

    def _hear(self, removals: Removals) -> None:
        while not self._stop.is_set():
            select.select([removals.fileno(), self._reader.fileno()], [], [])
            if not self._stop.is_set() and removals.heard():
                self._round()
                self._stop.wait(self._pause_s)

    def _round(self) -> None:
        LOG.warning("packet filters were removed by somebody")
        try:
            self._mend()
        except DatabaseError as exc:
            LOG.error("packet filters: %s", exc)
        except Exception:  # a defect of one look must not end all others
            LOG.exception("packet filters")
