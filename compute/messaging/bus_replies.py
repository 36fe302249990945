"""The calling side of the embedded bus: one thread per process hands each reply to the thread that waits for it."""

import logging
import queue
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from oslo_messaging import MessagingTimeout

from compute.messaging.bus_post import Mailbox, PostOffice
from compute.messaging.bus_store import BusStoreError
from compute.messaging.bus_wire import MalformedMessageError, Reply, decode_reply

LOG = logging.getLogger(__name__)

_BATCH = 64


class PendingCall:
    """A call on its way; for the thread that made it."""

    def __init__(self, msg_id: str, reply_to: str, queue_name: str) -> None:
        self.msg_id = msg_id
        self.reply_to = reply_to
        self._queue_name = queue_name
        self._replies: queue.SimpleQueue[Reply] = queue.SimpleQueue()

    def arrived(self, reply: Reply) -> None:
        """Hand over a reply; from any thread."""
        self._replies.put(reply)

    def wait(self, timeout_s: float | None, monitor_timeout_s: float | None) -> Reply:
        """Return the ending reply; raise MessagingTimeout.

        `timeout_s` bounds the whole call, `monitor_timeout_s` the silence between two signs of life; None is no bound.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            bounds = [bound for bound in (left_s, monitor_timeout_s) if bound is not None]
            patience_s = min(bounds, default=None)
            try:
                reply = self._replies.get(timeout=patience_s)
            except queue.Empty:
                raise MessagingTimeout(
                    f"No reply from {self._queue_name} to message ID {self.msg_id}: none came within "
                    f"{timeout_s if patience_s == left_s else monitor_timeout_s} s"
                ) from None
            if reply.ending:
                return reply


class ReplyBox:
    """This process's endpoint for replies."""

    def __init__(self, post: PostOffice) -> None:
        self._mailbox: Mailbox = post.open(())
        self._calls: dict[str, PendingCall] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bus-replies", daemon=True)
        self._thread.start()

    @contextmanager
    def expect(self, queue_name: str) -> Iterator[PendingCall]:
        """Receive the replies to one new call to a queue for the length of the block; later ones are dropped."""
        call = PendingCall(uuid.uuid4().hex, self._mailbox.name, queue_name)
        self._calls[call.msg_id] = call
        try:
            yield call
        finally:
            del self._calls[call.msg_id]

    def close(self) -> None:
        """End the thread and the endpoint; calls still waiting time out."""
        self._stopped.set()
        self._mailbox.interrupt()
        self._thread.join()
        self._mailbox.close()

    def _run(self) -> None:
        while not self._stopped.is_set():
            for body in self._mailbox.wait(None) + self._taken():
                self._hand_over(body)

    def _taken(self) -> list[str]:
        bodies: list[str] = []
        try:
            while batch := self._mailbox.take(_BATCH):
                bodies += batch
        except BusStoreError:
            LOG.exception("Cannot read replies; will look again")
        return bodies

    def _hand_over(self, body: str) -> None:
        try:
            reply = decode_reply(body)
        except MalformedMessageError:
            LOG.exception("Dropped a reply")
            return
        call = self._calls.get(reply.msg_id)
        if call is None:
            LOG.debug("Dropped the reply to message ID %s: its caller no longer waits", reply.msg_id)
        else:
            call.arrived(reply)
