"""What happens to guests by themselves reaches their records at once; the periodic sync is the backstop.

An event only says where to look. The thread that looks is one, so a burst becomes one look, and a driver that cannot
listen now is asked again every second.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque

from compute.concurrency import Bell
from compute.sync import PowerSync
from db.errors import DatabaseError
from virt.driver import EmitsEvents
from virt.errors import VirtError

LOG = logging.getLogger(__name__)
RENEW_S = 1.0
COALESCE_S = 0.1
LOOK_AGAIN_S = (1.0, 3.0, 10.0)  # after these, a guest that a task holds is the periodic sync's


class Events:
    """Brings one driver's events to the records of its host."""

    def __init__(self, driver: EmitsEvents, sync: PowerSync) -> None:
        self._driver, self._sync = driver, sync
        self._told: deque[str | None] = deque()
        self._later: dict[str, tuple[float, int]] = {}  # uuid: when to look again, and how often we have
        self._bell, self._stop = Bell(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name="events", daemon=True)
        self._deaf = False

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End after the look that runs, if any."""
        self._stop.set()
        self._bell.ring()
        self._thread.join(timeout_s)

    def tell(self, uuid: str | None) -> None:
        """Note an event; from any thread, and at once."""
        self._told.append(uuid)
        self._bell.ring()

    def _loop(self) -> None:
        while not self._stop.is_set():
            self._listen()
            if self._bell.wait(RENEW_S):
                self._stop.wait(COALESCE_S)
            try:
                self._look()
            except DatabaseError as exc:
                LOG.warning("events: %s", exc)
            except Exception:  # a defect of one look must not end all others
                LOG.exception("events")
        self._bell.close()

    def _listen(self) -> None:
        try:
            self._driver.watch(self.tell)
        except VirtError as exc:
            if not self._deaf:
                LOG.warning("no events from the hypervisor: %s", exc)
            self._deaf = True
        else:
            if self._deaf:
                LOG.info("events come from the hypervisor again")
            self._deaf = False

    def _look(self) -> None:
        uuids = {self._told.popleft() for _ in range(len(self._told))}
        if None in uuids:
            self._sync.run(counts=False)
        new = {uuid for uuid in uuids if uuid is not None}
        due = {uuid for uuid, (at, _) in self._later.items() if at <= time.monotonic()}
        if not new | due:
            return
        busy = self._sync.look(new | due)
        for uuid in new | due:
            self._postpone(uuid, 0 if uuid in new else self._later[uuid][1] + 1, still=uuid in busy)

    def _postpone(self, uuid: str, times: int, *, still: bool) -> None:
        self._later.pop(uuid, None)
        if still and times < len(LOOK_AGAIN_S):
            self._later[uuid] = (time.monotonic() + LOOK_AGAIN_S[times], times)
