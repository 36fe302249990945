"""The HTTPS server of one host: XML-RPC at / and /RPC2 on connections that stay open, transfers on others."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from email.parser import BytesParser
from typing import TYPE_CHECKING, BinaryIO
from xml.parsers.expat import ExpatError
from xmlrpc.client import ResponseError, loads

from tests.fakes.xenapi.errors import ConnectionDroppedError
from tests.fakes.xenapi.transfer import parse
from tests.fakes.xenapi.values import fault

if TYPE_CHECKING:
    from tests.fakes.xenapi.pool import Host, Pool

IDLE_S = 3600
MOST_HEADERS = 64 << 10


class Server:
    """Listens on a host's address. start and stop may be repeated; the port stays the same."""

    def __init__(self, pool: Pool, host: Host, context: ssl.SSLContext) -> None:
        self._pool, self._host, self._context = pool, host, context
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def bind(self, port: int) -> int:
        """Take the port, or any when it is 0; OSError when it is taken."""
        listener = socket.create_server((self._host.address, port), backlog=128)
        self._listener = listener
        return int(listener.getsockname()[1])

    def start(self) -> None:
        """Take connections."""
        assert self._listener is not None
        threading.Thread(target=self._accept, args=(self._listener,), name=self._host.name, daemon=True).start()

    def stop(self) -> None:
        """Refuse connections and cut those there are."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.cut()

    def cut(self) -> None:
        """Cut all connections."""
        with self._lock:
            gone, self._open = self._open, set()
        for connection in gone:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=self._serve, args=(connection,), name="connection", daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        raw.settimeout(IDLE_S)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open.add(raw)
        connection = raw
        try:
            connection = self._context.wrap_socket(raw, server_side=True)
            with self._lock:
                self._open.discard(raw)
                self._open.add(connection)
            with connection.makefile("rb") as stream:
                while self._one(connection, stream):
                    pass
        except (OSError, ConnectionDroppedError):
            pass  # the client went, or a fault says that we do
        finally:
            with self._lock:
                self._open -= {raw, connection}
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
            raw.close()

    def _one(self, connection: socket.socket, stream: BinaryIO) -> bool:
        """Serve one request; whether there may be another one."""
        line = stream.readline(MOST_HEADERS).decode("latin-1").split()
        if len(line) != 3:
            return False
        lines = [b""]
        while (header := stream.readline(MOST_HEADERS)).strip():
            lines.append(header)
        headers = {name.lower(): value for name, value in BytesParser().parsebytes(b"".join(lines)).items()}
        if line[0] != "POST":
            self._pool.transfers.serve(self._host, parse(line[0], line[1], headers, stream, connection.sendall))
            return False
        body = stream.read(int(headers.get("content-length", 0)))
        answer = self._answer(body)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {len(answer)}\r\n\r\n"
        connection.sendall(head.encode() + answer)
        return headers.get("connection", "").lower() != "close"

    def _answer(self, body: bytes) -> bytes:
        try:
            params, method = loads(body)
        except (ExpatError, ResponseError, ValueError, TypeError, KeyError) as exc:
            return fault(1, f"no XML-RPC call: {exc!r}")
        return self._pool.dispatcher.answer(self._host, method or "", params)
