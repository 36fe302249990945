"""One-time doors to consoles that listen on loopback or on a terminal of this host.

Behind a port of its own a door waits for one client, who must send the token and a newline first; then bytes go to and
fro. A door closes for good when it was used, after a few wrong tokens, or when its time is over.
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import selectors
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

from virt.errors import HypervisorError, VirtError
from virt.spec import ConsoleAccess
from virt.threads import Threads

LOG = logging.getLogger(__name__)

_MAX_WRONG = 3
_TOKEN_S = 10.0
_CHUNK = 65536

Target = Callable[[], int]
"""Opens what is behind a door and returns its file descriptor; asked when the client is there, so never stale."""


class Doors:
    """The doors of one host, at `address`: at most `limit` at a time, each open for `ttl_s` until somebody comes."""

    def __init__(self, threads: Threads, address: str = "127.0.0.1", *, ttl_s: float = 300.0, limit: int = 64) -> None:
        self._threads, self.address, self._ttl_s, self._limit = threads, address, ttl_s, limit
        self._sockets: set[socket.socket] = set()

    def open(self, what: str, target: Target) -> ConsoleAccess:
        """A new door to `target`. Raises HypervisorError when too many are open or the address cannot be had."""
        if len(self._sockets) >= self._limit:
            raise HypervisorError(f"{what}: {self._limit} consoles are open already")
        try:
            listener = socket.create_server((self.address, 0), backlog=4)
        except OSError as exc:
            raise HypervisorError(f"{what}: cannot listen on {self.address}: {exc.strerror}") from exc
        self._sockets.add(listener)
        token = secrets.token_urlsafe(24)
        port: int = listener.getsockname()[1]
        self._threads.start(lambda: self._serve(listener, token, what, target), f"console:{what}")
        return ConsoleAccess(host=self.address, port=port, token=token)

    def close(self) -> None:
        """Close every door and every console that is open."""
        for open_socket in list(self._sockets):
            with suppress(OSError):  # it was closed by its own thread a moment ago
                open_socket.shutdown(socket.SHUT_RDWR)

    def _serve(self, listener: socket.socket, token: str, what: str, target: Target) -> None:
        try:
            with listener:
                client = self._admit(listener, token)
            self._sockets.discard(listener)
            if client is not None:
                self._sockets.add(client)
                with client:
                    self._join(client, what, target)
                self._sockets.discard(client)
        except (OSError, VirtError) as exc:
            LOG.info("%s: console closed: %s", what, exc)
        finally:
            self._sockets.discard(listener)

    def _admit(self, listener: socket.socket, token: str) -> socket.socket | None:
        deadline = time.monotonic() + self._ttl_s
        for _ in range(_MAX_WRONG):
            listener.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                client, _ = listener.accept()
            except TimeoutError:
                return None
            if _knows(client, token):
                client.settimeout(None)
                return client
            client.close()
        return None

    def _join(self, client: socket.socket, what: str, target: Target) -> None:
        with ExitStack() as stack:
            inside = target()
            stack.callback(os.close, inside)
            LOG.info("%s: console opened", what)
            _pump(client, inside)


def terminal(path: str) -> int:
    """Open a pseudo-terminal of this host."""
    try:
        return os.open(path, os.O_RDWR | os.O_NOCTTY)
    except OSError as exc:
        raise HypervisorError(f"{path}: {exc.strerror}") from exc


def local_port(host: str, port: int) -> int:
    """Connect to a server on this host."""
    try:
        return socket.create_connection((host, port), timeout=5).detach()
    except OSError as exc:
        raise HypervisorError(f"{host}:{port}: {exc}") from exc


def _knows(client: socket.socket, token: str) -> bool:
    """True when the client's first line is the token. Reads byte by byte: what follows belongs to the console."""
    client.settimeout(_TOKEN_S)
    said = b""
    try:
        while len(said) <= len(token) and (byte := client.recv(1)) not in {b"", b"\n"}:
            said += byte
    except OSError:
        return False
    return hmac.compare_digest(said.rstrip(b"\r"), token.encode())


def _pump(client: socket.socket, inside: int) -> None:
    """Carry bytes both ways until one side ends."""
    os.set_blocking(inside, True)
    with selectors.DefaultSelector() as selector:
        selector.register(client.fileno(), selectors.EVENT_READ, inside)
        selector.register(inside, selectors.EVENT_READ, client.fileno())
        while True:
            for ready, _ in selector.select():
                chunk = os.read(ready.fd, _CHUNK)
                if not chunk:
                    return
                while chunk:
                    chunk = chunk[os.write(ready.data, chunk) :]
