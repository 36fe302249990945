"""The embedded bus itself: durable queues plus wake-ups, still without oslo.messaging."""

import logging
import secrets
from collections.abc import Sequence
from pathlib import Path

from compute.messaging.bus_store import BusFileError, BusStore, BusStoreError, private_queue
from compute.messaging.bus_wake import MAX_LETTER_BYTES, RING, Delivery, WakeDirectory, WakeError

LOG = logging.getLogger(__name__)

# Wake-ups do not get lost; this only bounds the harm if one ever does. It costs an idle reader one read a second.
FALLBACK_LOOK_S = 1.0
# A fanout nobody has read for this long is news to nobody.
FANOUT_TTL_S = 600.0


class PostOffice:
    """One process's way to the bus at `path`; safe for many threads.

    The sockets live in the directory `<path>-wake`. Raises BusFileError if either cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.store = BusStore(path)
        try:
            self.wake = WakeDirectory(path.with_name(path.name + "-wake"))
        except WakeError as exc:
            self.store.close()
            raise BusFileError(str(exc)) from exc

    def send(self, queue: str, body: str, expires_at: float | None = None) -> None:
        """Queue a message for one reader of the queue, present or future, and wake those present."""
        self._ring(self.store.put(queue, body, expires_at))

    def publish(self, queue: str, body: str, expires_at: float) -> None:
        """Give every present reader of the queue a copy; without readers nothing happens."""
        self._ring(self.store.publish(queue, body, expires_at))

    def reply(self, endpoint: str, body: str) -> None:
        """Hand a message to one endpoint, or drop it if that has ended.

        A reply concerns only a caller that is alive, so it rides in the wake-up when it fits and there is room; else
        it goes through the file. Replies to one endpoint may overtake each other.
        """
        letter = body.encode()
        if len(letter) <= MAX_LETTER_BYTES:
            delivery = self.wake.post(endpoint, letter)
            if delivery is Delivery.GONE:
                LOG.debug("Dropped a reply: caller %s has ended", endpoint)
            if delivery is not Delivery.FULL:
                return
        self.store.put(private_queue(endpoint), body)
        self._ring([endpoint])

    def open(self, queues: Sequence[str]) -> "Mailbox":
        """Open a new endpoint that reads these queues and a private one of its own."""
        name = secrets.token_hex(8)
        return Mailbox(self, name, queues)

    def sweep(self) -> None:
        """Remove what ended processes left behind: their sockets, bindings and private queues, and expired calls."""
        for endpoint in self.wake.names() | self.store.endpoints():
            if not self.wake.is_alive(endpoint):
                self.forget(endpoint)
        self.store.purge_expired()

    def forget(self, endpoint: str) -> None:
        """Remove an endpoint: its bindings, its private queue, its socket file."""
        self.store.forget(endpoint)
        self.wake.remove(endpoint)

    def close(self) -> None:
        """Close the file and the sending socket; close the mailboxes first."""
        self.wake.close()
        self.store.close()

    def _ring(self, endpoints: Sequence[str]) -> None:
        for endpoint in endpoints:
            if self.wake.post(endpoint) is Delivery.GONE:
                LOG.info("Reader %s has ended without a goodbye; removing its queue", endpoint)
                self.forget(endpoint)


class Mailbox:
    """One endpoint: reads its queues from the file and letters from its socket. One reading thread."""

    def __init__(self, post: PostOffice, name: str, queues: Sequence[str]) -> None:
        self.name = name
        self._post = post
        self._queues = (private_queue(name), *queues)
        try:
            # The socket first: an endpoint without one is taken for dead.
            self._doorbell = post.wake.open(name)
        except WakeError as exc:
            raise BusFileError(str(exc)) from exc
        try:
            post.store.bind(name, queues)
        except BaseException:
            self._doorbell.close()
            post.wake.remove(name)
            raise

    def take(self, limit: int) -> list[str]:
        """Take up to `limit` messages from the file, without waiting."""
        return self._post.store.take(self._queues, limit)

    def wait(self, timeout_s: float | None) -> list[str]:
        """Sleep until woken, at most `timeout_s` and FALLBACK_LOOK_S; return the letters that came.

        Look into the file after every wake-up: a ring finds no room beside many letters.
        """
        letters = self._doorbell.wait(FALLBACK_LOOK_S if timeout_s is None else min(timeout_s, FALLBACK_LOOK_S))
        return [letter.decode() for letter in letters if letter != RING]

    def interrupt(self) -> None:
        """Wake the reading thread; from any thread."""
        self._post.wake.post(self.name)

    def close(self) -> None:
        """End the endpoint: what waits in its shared queues stays there, its private queue goes."""
        self._doorbell.close()
        try:
            self._post.forget(self.name)
        except BusStoreError as exc:
            # The socket is closed, so the next sweep of any process finds the endpoint dead.
            LOG.warning("Left endpoint %s to be swept: %s", self.name, exc)
