"""Talks to the kernel's netfilter over netlink: messages as bytes, and what the kernel makes of them."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator
from functools import partial

NESTED = 0x8000
NETWORK_ORDER = 0x4000
ACK = 0x4
MOST_IN_A_MESSAGE = 400
"""Elements of a set that one message may name: an attribute has less than 64 KiB."""

_REQUEST, _ERROR, _NETFILTER = 0x1, 0x2, 12
_HEADER_BYTES = 20
_SO_SNDBUFFORCE = 32

MakeSocket = Callable[..., socket.socket]


@contextlib.contextmanager
def talk(make: MakeSocket, room: int) -> Iterator[Callable[[bytes], list[tuple[int, int]]]]:
    """One talk with the kernel, in the network namespace that `make` makes its socket in; gives what says messages.

    room: bytes of the longest thing to say. What was said is answered by the number of each message that was, and its
    error. Raises OSError.
    """
    with make(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER) as made:
        with contextlib.suppress(PermissionError):  # the usual room does for a few hundred guests
            made.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 4 * room)
        made.setblocking(False)
        made.bind((0, 0))
        yield partial(_say, made)


def message(kind: int, flags: int, number: int, resource: int = 0, *, family: int = 0, body: bytes = b"") -> bytes:
    """A request. number: by which its answer is known. resource, family: as the subsystem wants them."""
    head = struct.pack("=IHHII", _HEADER_BYTES + len(body), kind, _REQUEST | flags, number, 0)
    return head + struct.pack(">BBH", family, 0, resource) + body


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute of a message, or of an attribute that is NESTED."""
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def text(words: str) -> bytes:
    """A name as the kernel has it."""
    return words.encode() + b"\0"


def _say(made: socket.socket, messages: bytes) -> list[tuple[int, int]]:
    made.sendto(messages, (0, 0))
    found: list[tuple[int, int]] = []
    with contextlib.suppress(BlockingIOError):  # the kernel has answered when sendto returns
        while data := made.recv(1 << 16):
            found += _answers(data)
    return found


def _answers(data: bytes) -> Iterator[tuple[int, int]]:
    place = 0
    while place < len(data):
        size, kind, _, number, _ = struct.unpack_from("=IHHII", data, place)
        if kind == _ERROR:
            yield number, -struct.unpack_from("=i", data, place + 16)[0]
        place += (size + 3) & ~3
