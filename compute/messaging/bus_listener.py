"""The serving side of the embedded bus: what oslo.messaging's servers poll, and the messages they get."""

import logging
import sys
import threading
import time
from collections import deque
from types import TracebackType
from typing import Any

from oslo_messaging._drivers.base import PollStyleListener, RpcIncomingMessage
from oslo_messaging._drivers.common import serialize_remote_exception

from compute.messaging.bus_post import PostOffice
from compute.messaging.bus_store import BusStoreError, MessageTooLargeError
from compute.messaging.bus_wire import MalformedMessageError, Reply, Request, decode_request, encode

LOG = logging.getLogger(__name__)

_BATCH = 64
_SWEEP_INTERVAL_S = 60.0

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class BusIncomingMessage(RpcIncomingMessage):  # type: ignore[misc]  # oslo.messaging is untyped
    """A message taken from the bus.

    Taking it removed it, as oslo.messaging's RPC servers acknowledge before they dispatch: a server that dies in the
    middle does not run it twice. The order behind a doorbell is in the database.
    """

    def __init__(self, post: PostOffice, request: Request) -> None:
        super().__init__(request.ctxt, request.message, request.msg_id)
        self.client_timeout = request.monitor_timeout_s
        self._post = post
        self._reply_to = request.reply_to

    def requeue(self) -> None:
        """Do nothing: BaseDriver.require_features refuses servers that would ask for it."""

    def reply(self, reply: Any = None, failure: ExcInfo | None = None) -> None:
        """Send the caller a result or an exception; a result that cannot travel arrives as the reason why."""
        if self._reply_to is None:
            return
        try:
            self._send(self._rendered(reply, failure))
        except MessageTooLargeError:
            self._send(self._failed(sys.exc_info()))

    def heartbeat(self) -> None:
        """Tell the caller that its call is still being worked on."""
        self._send(encode(Reply(msg_id=self.msg_id, ending=False)))

    def _rendered(self, result: Any, failure: Any) -> str:
        if failure:
            return self._failed(failure)
        try:
            return encode(Reply(msg_id=self.msg_id, result=result))
        except (TypeError, ValueError):
            LOG.exception("The result of %s has no JSON form", self.message.get("method"))
            return self._failed(sys.exc_info())

    def _failed(self, failure: Any) -> str:
        return encode(Reply(msg_id=self.msg_id, failure=serialize_remote_exception(failure)))

    def _send(self, body: str) -> None:
        if self._reply_to is None:
            return
        try:
            self._post.reply(self._reply_to, body)
        except MessageTooLargeError:
            raise
        except BusStoreError:
            LOG.exception("Cannot reply to message ID %s", self.msg_id)


class BusListener(PollStyleListener):  # type: ignore[misc]  # oslo.messaging is untyped
    """Reads the queues of one server. It takes messages in batches and hands them out as asked."""

    def __init__(self, post: PostOffice, queues: list[str]) -> None:
        super().__init__()
        self._post = post
        self._mailbox = post.open(queues)
        self._taken: deque[BusIncomingMessage] = deque()
        self._stopped = threading.Event()
        self._sweep_at = 0.0  # on the monotonic clock: at once, then every _SWEEP_INTERVAL_S

    def poll(
        self, timeout: float | None = None, batch_size: int = 1, batch_timeout: float | None = None
    ) -> list[BusIncomingMessage]:
        """Return up to `batch_size` messages, waiting `timeout` s for the first, `batch_timeout` s for the rest."""
        try:
            self._gather(1, timeout)
            if self._taken and batch_size > 1:
                self._gather(batch_size, batch_timeout)
        except BusStoreError:
            LOG.exception("Cannot read the bus; will look again")
            self._mailbox.wait(timeout)
        return [self._taken.popleft() for _ in range(min(batch_size, len(self._taken)))]

    def stop(self) -> None:
        """Make `poll` return what has been taken already, and then nothing."""
        self._stopped.set()
        self._mailbox.interrupt()

    def cleanup(self) -> None:
        """End the endpoint; undelivered messages wait in the file for the next reader."""
        self._mailbox.close()

    def _gather(self, wanted: int, timeout_s: float | None) -> None:
        """Take until `wanted` messages are here, the time is up, or the listener is stopped."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while len(self._taken) < wanted and not self._stopped.is_set():
            self._taken.extend(self._decoded(self._mailbox.take(_BATCH)))
            left_s = None if deadline is None else deadline - time.monotonic()
            if len(self._taken) >= wanted or (left_s is not None and left_s <= 0):
                return
            self._sweep_when_due()
            self._mailbox.wait(left_s)

    def _sweep_when_due(self) -> None:
        if time.monotonic() >= self._sweep_at:
            self._sweep_at = time.monotonic() + _SWEEP_INTERVAL_S
            self._post.sweep()

    def _decoded(self, bodies: list[str]) -> list[BusIncomingMessage]:
        messages = []
        for body in bodies:
            try:
                messages.append(BusIncomingMessage(self._post, decode_request(body)))
            except MalformedMessageError:
                LOG.exception("Dropped a message")
        return messages
