"""Plain HTTP over TLS, as far as disks and consoles need it: a connection to a host of the pool, the head of an answer.

By hand, because these hosts answer before they have read what they are sent, which http.client does not expect.
"""

from __future__ import annotations

import contextlib
import email.parser
import selectors
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPMessage
from urllib.parse import urlsplit

from virt.errors import HypervisorUnreachableError

STALL_S = 120.0

_CHUNK = 256 * 1024
_MOST_HEAD = 65536


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of an answer, and what came of its body with it."""

    status: int
    reason: str
    headers: HTTPMessage
    rest: bytes


@contextlib.contextmanager
def connected(target: str, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    """A verified connection to the host of a URL, closed on leaving. Raises HypervisorUnreachableError."""
    with opened(target, context) as link:
        yield link


def opened(target: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    """The same, for the caller to close."""
    parts = urlsplit(target)
    host = str(parts.hostname)
    try:
        plain = socket.create_connection((host, parts.port or 443), timeout=STALL_S)
        try:
            return context.wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise
    except OSError as exc:
        reason = getattr(exc, "verify_message", "") or exc.strerror or str(exc)
        raise HypervisorUnreachableError(f"{host}: {reason}") from exc


def head_of(link: socket.socket, timeout_s: float) -> Answer:
    """The head of the answer. Raises TimeoutError when not even its first byte comes within `timeout_s`."""
    link.settimeout(timeout_s)
    data = b""
    while b"\r\n\r\n" not in data:
        more = link.recv(_CHUNK)
        link.settimeout(STALL_S)
        if not more or len(data) > _MOST_HEAD:
            raise ConnectionError("the host closed the connection without an answer")
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    line, _, fields = head.decode("latin-1").partition("\r\n")
    words = line.split(None, 2)
    if len(words) < 2 or not words[1].isdigit():
        raise ConnectionError(f"the host answered {line[:80]!r}, which is not HTTP")
    headers = email.parser.Parser(_class=HTTPMessage).parsestr(fields)
    return Answer(int(words[1]), " ".join(words[1:]), headers, rest)


def joined(link: ssl.SSLSocket, near: socket.socket, first: bytes) -> None:
    """Carry bytes between a connection and a socket of ours until one of them ends; `first` is what came already."""
    near.sendall(first)
    with selectors.DefaultSelector() as selector:
        for one in (link, near):
            selector.register(one, selectors.EVENT_READ)
        while True:
            ready = [link] if link.pending() else [key.fileobj for key, _ in selector.select()]
            if (near in ready and not _pass_on(near, link)) or (link in ready and not _take_in(link, near)):
                return


def _pass_on(near: socket.socket, link: ssl.SSLSocket) -> bool:
    data = near.recv(_CHUNK)
    link.settimeout(STALL_S)
    link.sendall(data)
    return bool(data)


def _take_in(link: ssl.SSLSocket, near: socket.socket) -> bool:
    link.settimeout(0)
    try:
        data = link.recv(_CHUNK)
    except ssl.SSLWantReadError:  # what came was TLS's own
        return True
    near.sendall(data)
    return bool(data)
