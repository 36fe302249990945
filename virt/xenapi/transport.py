"""XML-RPC over one verified HTTPS connection: every call has a deadline, and none is ever sent twice.

The standard library's transport sends a request again when the connection drops before the answer; a clone would then
be made twice.
"""

from __future__ import annotations

import http.client
import selectors
import ssl
import time
from typing import Any
from xmlrpc.client import SafeTransport

_CHUNK = 65536


def verified(ca_file: str = "") -> ssl.SSLContext:
    """A context that believes the certificates in `ca_file`, or those that this machine trusts. Raises OSError."""
    return ssl.create_default_context(cafile=ca_file or None)


class Transport(SafeTransport):
    """A connection that is kept between calls. `deadline` (of time.monotonic) is set by the caller before each."""

    user_agent = "micronova"
    accept_gzip_encoding = False

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()
        self._tls = context
        self._open: http.client.HTTPSConnection | None = None
        self.deadline, self.was_sent = 0.0, False

    @property
    def is_fresh(self) -> bool:
        """True when the server has not closed its end, as far as can be seen."""
        if self._open is None or self._open.sock is None:
            return True
        with selectors.DefaultSelector() as selector:
            selector.register(self._open.sock, selectors.EVENT_READ)
            return not selector.select(0)

    def request(self, host: Any, handler: str, request_body: Any, verbose: bool = False) -> Any:
        """Send once. `was_sent` tells afterwards whether the server may have seen it."""
        self.was_sent = False
        return self.single_request(host, handler, request_body, verbose)

    def make_connection(self, host: Any) -> http.client.HTTPSConnection:
        """The connection, opened if need be."""
        if self._open is None:
            connection = http.client.HTTPSConnection(str(host), timeout=self._left(), context=self._tls)
            connection.connect()
            self._open = connection
        self._limit()
        return self._open

    def send_content(self, connection: http.client.HTTPConnection, request_body: Any) -> None:
        """Send the head and the body."""
        self.was_sent = True
        super().send_content(connection, request_body)

    def parse_response(self, response: Any) -> Any:
        """What the answer says, however slowly it trickles in: until the deadline."""
        parser, target = self.getparser()
        while data := response.read(_CHUNK):
            parser.feed(data)
            self._limit()
        parser.close()
        return target.close()

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _limit(self) -> None:
        left = self._left()
        if self._open is not None and self._open.sock is not None:
            self._open.sock.settimeout(left)

    def _left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        return left
