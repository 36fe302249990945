"""The embedded bus: an oslo.messaging driver for the processes of one machine, with nothing to install or start.

URL `sqlite:///abs/path/bus.sqlite` (a fourth slash is the same: the path is always absolute). The bus is that file and
the socket directory `<file>-wake` beside it, both private to their user.

- Casts wait in the file, with or without a reader, until one process takes them; taking is the acknowledgement.
- A fanout reaches the readers present; a call whose caller has timed out is dropped.
- A message may have 2 MiB, a queue 100,000 messages; beyond that the sender gets MessageDeliveryFailure.

Layers, each usable without the one above: bus_store (queues in SQLite), bus_wake (sockets), bus_post (both together),
bus_listener and bus_replies (oslo.messaging's server and client side), this driver.
"""

import threading
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from oslo_messaging import MessageDeliveryFailure, MessagingException
from oslo_messaging._drivers.base import BaseDriver, PollStyleListenerAdapter
from oslo_messaging._drivers.common import deserialize_remote_exception

from compute.messaging.bus_listener import BusListener
from compute.messaging.bus_post import FANOUT_TTL_S, PostOffice
from compute.messaging.bus_replies import ReplyBox
from compute.messaging.bus_store import BusStoreError
from compute.messaging.bus_wire import Request, encode, queue_name


class BusUnavailableError(MessagingException):  # type: ignore[misc]  # oslo.messaging is untyped
    """The bus at the transport URL cannot be used; the text says why and names the file."""


class SqliteBusDriver(BaseDriver):  # type: ignore[misc]  # oslo.messaging is untyped
    """Sends, calls and listens over one SQLite file; for native threads, not for eventlet."""

    def __init__(
        self, conf: Any, url: Any, default_exchange: str | None = None, allowed_remote_exmods: list[str] | None = None
    ) -> None:
        """Open the bus, creating its file in an existing directory; raise BusUnavailableError."""
        super().__init__(conf, url, default_exchange, allowed_remote_exmods)
        try:
            self._post = PostOffice(_bus_path(url))
        except BusStoreError as exc:
            raise BusUnavailableError(str(exc)) from exc
        self._replies_lock = threading.Lock()
        self._replies: ReplyBox | None = None

    def send(
        self,
        target: Any,
        ctxt: dict[str, Any],
        message: dict[str, Any],
        wait_for_reply: bool | None = None,
        timeout: float | None = None,
        call_monitor_timeout: float | None = None,
        retry: int | None = None,  # noqa: ARG002 - waiting for the file's lock is the retry; see _deliver
        transport_options: Any = None,  # noqa: ARG002 - every message is delivered at least to the file
    ) -> Any:
        """Cast, or call and return the result, or raise the exception the server raised.

        Raises MessagingTimeout, MessageDeliveryFailure, and TypeError for what JSON cannot carry.
        """
        if not wait_for_reply:
            self._deliver(target, Request(ctxt=ctxt, message=message, msg_id=uuid.uuid4().hex))
            return None
        with self._reply_box().expect(self._queue(target)) as call:
            request = Request(
                ctxt=ctxt,
                message=message,
                msg_id=call.msg_id,
                reply_to=call.reply_to,
                monitor_timeout_s=call_monitor_timeout,
            )
            self._deliver(target, request, expires_at=None if timeout is None else time.time() + timeout)
            reply = call.wait(timeout, call_monitor_timeout)
        if reply.failure is not None:
            raise deserialize_remote_exception(reply.failure, self._allowed_remote_exmods)
        return reply.result

    def send_notification(
        self,
        target: Any,
        ctxt: dict[str, Any],
        message: dict[str, Any],
        version: float,  # noqa: ARG002 - envelopes are a matter of AMQP
        retry: int | None = None,  # noqa: ARG002 - as in send
    ) -> None:
        """Queue a notification; it waits in the file for a listener."""
        self._deliver(target, Request(ctxt=ctxt, message=message, msg_id=uuid.uuid4().hex))

    def listen(self, target: Any, batch_size: int, batch_timeout: float | None) -> PollStyleListenerAdapter:
        """Read what is sent to the target's server, to its topic, and to all of its topic."""
        names = [target.server, None] if target.server else [None]
        queues = [queue_name(self._exchange(target), target.topic, name) for name in names]
        return self._listener(queues, batch_size, batch_timeout)

    def listen_for_notifications(
        self,
        targets_and_priorities: Iterable[tuple[Any, str]],
        pool: str | None,
        batch_size: int,
        batch_timeout: float | None,
    ) -> PollStyleListenerAdapter:
        """Read notifications; raise NotImplementedError for a pool, whose members would each need a copy."""
        if pool is not None:
            raise NotImplementedError(f"The sqlite bus has no notification pools, so not {pool!r}")
        queues = [
            queue_name(self._exchange(target), f"{target.topic}.{priority}")
            for target, priority in targets_and_priorities
        ]
        return self._listener(queues, batch_size, batch_timeout)

    def cleanup(self) -> None:
        """Close the bus; servers are to be stopped first."""
        with self._replies_lock:
            if self._replies is not None:
                self._replies.close()
                self._replies = None
        self._post.close()

    def _deliver(self, target: Any, request: Request, expires_at: float | None = None) -> None:
        queue, body = self._queue(target), encode(request)
        try:
            if target.fanout:
                self._post.publish(queue, body, time.time() + FANOUT_TTL_S)
            else:
                self._post.send(queue, body, expires_at)
        except BusStoreError as exc:
            # Locked for BUSY_TIMEOUT_S, full, too large or unwritable: trying again would not make it better.
            raise MessageDeliveryFailure(str(exc)) from exc

    def _listener(self, queues: list[str], batch_size: int, batch_timeout: float | None) -> PollStyleListenerAdapter:
        try:
            listener = BusListener(self._post, queues)
        except BusStoreError as exc:
            raise BusUnavailableError(str(exc)) from exc
        return PollStyleListenerAdapter(listener, batch_size, batch_timeout)

    def _reply_box(self) -> ReplyBox:
        with self._replies_lock:
            if self._replies is None:
                try:
                    self._replies = ReplyBox(self._post)
                except BusStoreError as exc:
                    raise BusUnavailableError(str(exc)) from exc
            return self._replies

    def _queue(self, target: Any) -> str:
        return queue_name(self._exchange(target), target.topic, None if target.fanout else target.server)

    def _exchange(self, target: Any) -> str:
        return target.exchange or self._default_exchange or "default"


def _bus_path(url: Any) -> Path:
    if url.hosts or not url.virtual_host:
        raise BusUnavailableError(f"{url} names no file: write sqlite:///absolute/path/to/bus.sqlite")
    return Path("/", url.virtual_host.lstrip("/"))
