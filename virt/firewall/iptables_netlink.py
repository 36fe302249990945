"""Elements of the bridge's sets, given to the kernel without nft.

nft asks for every chain of every table on the host before it adds one element: with 500 guests that is the dearest part
of a guest that comes. The kernel needs none of it. This speaks what nft speaks (nfnetlink, one batch, all or nothing),
for elements alone; pyroute2 has the messages, but does not read what becomes of a batch.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from itertools import groupby

from virt.errors import FirewallError
from virt.firewall.iptables_guard import TABLE

_NETFILTER, _NFTABLES, _BRIDGE = 12, 10, 7
_BEGIN, _END, _ERROR = 0x10, 0x11, 0x2
_VERBS = {"add": _NFTABLES << 8 | 12, "delete": _NFTABLES << 8 | 14}
_REQUEST, _ACK, _CREATE = 0x1, 0x4, 0x400
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_ELEMENT, _KEY, _KEY_END, _VALUE, _NESTED = 1, 1, 10, 1, 0x8000
_IFNAME_BYTES, _HEADER_BYTES = 16, 20
_ELEMENTS_A_MESSAGE = 400  # an attribute has less than 64 KiB
_SO_SNDBUFFORCE = 32
_LINE = re.compile(rf'(add|delete) element bridge {TABLE} (\S+) \{{ "([^"]+)"(?: \. (\S+))? \}}')

Element = tuple[str, str, bytes, bytes | None]
"""Verb, set, key, and the key's end in a set of ranges."""


def is_elements(text: str) -> bool:
    """True when the text has nothing for nft but elements to add and delete."""
    return text.startswith(("add element ", "delete element "))


class ElementSocket:
    """Changes elements in the network namespace that it was made in."""

    def __init__(self, make: Callable[..., socket.socket] = socket.socket) -> None:
        self._make = make

    def feed(self, text: str) -> None:
        """Do what nft would with lines of elements, all of it or nothing. Raises FirewallError."""
        batch, sets = _batch(sorted(map(_element, text.splitlines()), key=_place))
        try:
            answers = self._exchange(batch)
        except OSError as exc:
            raise FirewallError(f"nftables: table bridge {TABLE}: {exc.strerror}") from exc
        for number, error in answers:
            if error:
                what = f"set {sets[number]}" if number in sets else "the change"
                raise FirewallError(f"nftables: table bridge {TABLE}: {what}: {os.strerror(error)}")
        if {number for number, _ in answers} < set(sets):
            raise FirewallError(f"nftables: table bridge {TABLE}: the kernel has not said what became of a change")

    def _exchange(self, batch: bytes) -> list[tuple[int, int]]:
        """The number of each message that was answered, and its error: the kernel has answered when sendto returns."""
        with self._make(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER) as made:
            with contextlib.suppress(PermissionError):  # the usual room does for a few hundred guests
                made.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 4 * len(batch))
            made.setblocking(False)
            made.bind((0, 0))
            made.sendto(batch, (0, 0))
            found: list[tuple[int, int]] = []
            with contextlib.suppress(BlockingIOError):
                while data := made.recv(1 << 16):
                    found += _answers(data)
            return found


def _place(element: Element) -> tuple[bool, str]:
    """What is deleted goes first: a range that takes its place may overlap it."""
    return element[0] == "add", element[1]


def _answers(data: bytes) -> Iterator[tuple[int, int]]:
    place = 0
    while place < len(data):
        size, kind, _, number, _ = struct.unpack_from("=IHHII", data, place)
        if kind == _ERROR:
            yield number, -struct.unpack_from("=i", data, place + 16)[0]
        place += (size + 3) & ~3


def _batch(elements: list[Element]) -> tuple[bytes, dict[int, str]]:
    """One transaction, and the set that each of its messages is about."""
    found, sets = [_message(_BEGIN, 0, 0, _NFTABLES)], {}
    for (verb, name), group in groupby(elements, key=lambda one: one[:2]):
        listed = list(group)
        for first in range(0, len(listed), _ELEMENTS_A_MESSAGE):
            sets[number := len(found)] = name
            body = _attribute(_LIST_TABLE, TABLE.encode() + b"\0") + _attribute(_LIST_SET, name.encode() + b"\0")
            some = b"".join(_of_element(*one[2:]) for one in listed[first : first + _ELEMENTS_A_MESSAGE])
            body += _attribute(_LIST_ELEMENTS | _NESTED, some)
            found.append(_message(_VERBS[verb], _ACK | (_CREATE if verb == "add" else 0), number, 0, _BRIDGE, body))
    return b"".join([*found, _message(_END, 0, len(found), _NFTABLES)]), sets


def _of_element(key: bytes, end: bytes | None) -> bytes:
    ends = b"" if end is None else _attribute(_KEY_END | _NESTED, _attribute(_VALUE, end))
    return _attribute(_ELEMENT | _NESTED, _attribute(_KEY | _NESTED, _attribute(_VALUE, key)) + ends)


def _message(kind: int, flags: int, number: int, resource: int, family: int = 0, body: bytes = b"") -> bytes:
    head = struct.pack("=IHHII", _HEADER_BYTES + len(body), kind, _REQUEST | flags, number, 0)
    return head + struct.pack(">BBH", family, 0, resource) + body


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _element(line: str) -> Element:
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError(f"not an element of table {TABLE}: {line}")
    verb, name, dev, key = found.groups()
    tap = dev.encode().ljust(_IFNAME_BYTES, b"\0")
    if key is None:
        return verb, name, tap, None
    first, last = _range(name, key)
    return verb, name, tap + first, tap + last if name == "routers" else None


def _range(name: str, key: str) -> tuple[bytes, bytes]:
    """The first and the last value of a key, as long as a register."""
    if name == "macs":
        mac = bytes.fromhex(key.replace(":", "")) + b"\0\0"
        return mac, mac
    if name == "told":
        told = int(key, 16).to_bytes(16, "big")
        return told, told
    if "/" in key:
        network = ip_network(key)
        return network.network_address.packed, network.broadcast_address.packed
    return ip_address(key).packed, ip_address(key).packed
