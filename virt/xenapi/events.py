"""Listen to what happens in a pool: one call that xapi answers when there is something to tell."""

from __future__ import annotations

import logging
import threading

from virt.driver import Told
from virt.errors import VirtError
from virt.xenapi import stamps
from virt.xenapi.guests import Guests
from virt.xenapi.helper import HelperBase, Record
from virt.xenapi.session import Session

LOG = logging.getLogger(__name__)

_WAIT_S, _ANSWER_S = 30.0, 60.0


class Watcher(HelperBase):
    """Tells of the guests of one host whose power state or host changes."""

    def __init__(self, session: Session, guests: Guests) -> None:
        super().__init__(session)
        self._guests = guests
        self._entrance = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def watch(self, told: Told) -> None:
        """Listen from now on, if nobody does; then `told(None)`. Raises HypervisorUnreachableError."""
        with self._entrance:
            if self._thread is not None and self._thread.is_alive():
                return
            token, records = self._guests.now()
            known = {ref: _facts(record) for ref, record in records.items()}
            self._stopped = False
            self._thread = threading.Thread(
                target=self._listen, args=(token, known, told), name="xenapi:events", daemon=True
            )
            self._thread.start()
        told(None)

    def stop(self) -> None:
        """Tell of nothing any more; who listens notices when the session ends."""
        self._stopped = True

    def _listen(self, token: str, known: dict[str, tuple[str, str]], told: Told) -> None:
        try:
            while not self._stopped:
                batch = self.session.call(
                    "event.from", ["vm"], token, _WAIT_S, timeout_s=_ANSWER_S, renews=False
                )  # fmt: skip
                token = batch["token"]
                for event in [] if self._stopped else batch["events"]:
                    self._look(event, known, told)
        except VirtError as exc:
            LOG.debug("events end: %s", exc)

    def _look(self, event: Record, known: dict[str, tuple[str, str]], told: Told) -> None:
        record, before = event.get("snapshot"), known.pop(event["ref"], None)
        if event["operation"] == "del" or not record:
            if before is not None:
                told(None)  # whose it was is gone with it
            return
        known[event["ref"]] = _facts(record)
        if known[event["ref"]] != before and self._guests.is_ours(record):
            told(record["other_config"].get(stamps.UUID))


def _facts(record: Record) -> tuple[str, str]:
    return record["power_state"], record["resident_on"]
