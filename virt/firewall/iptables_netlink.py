"""Elements of the bridge's sets, given to the kernel without nft.

nft asks for every chain of every table on the host before it adds one element: with 500 guests that is the dearest part
of a guest that comes. The kernel needs none of it. This speaks what nft speaks (nfnetlink, one batch, all or nothing),
for elements alone; pyroute2 has the messages, but does not read what becomes of a batch.
"""

from __future__ import annotations

import os
import re
import socket
from ipaddress import ip_address, ip_network
from itertools import groupby

from virt.errors import FirewallError
from virt.firewall.iptables_guard import TABLE
from virt.firewall.netfilter import ACK, MOST_IN_A_MESSAGE, NESTED, MakeSocket, attribute, message, talk, text

_NFTABLES, _BRIDGE = 10, 7
_BEGIN, _END = 0x10, 0x11
_VERBS = {"add": _NFTABLES << 8 | 12, "delete": _NFTABLES << 8 | 14}
_CREATE = 0x400
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_ELEMENT, _KEY, _KEY_END, _VALUE = 1, 1, 10, 1
_IFNAME_BYTES = 16
_LINE = re.compile(rf'(add|delete) element bridge {TABLE} (\S+) \{{ "([^"]+)"(?: \. (\S+))? \}}')

Element = tuple[str, str, bytes, bytes | None]
"""Verb, set, key, and the key's end in a set of ranges."""


def is_elements(lines: str) -> bool:
    """True when the lines have nothing for nft but elements to add and delete."""
    return lines.startswith(("add element ", "delete element "))


class ElementSocket:
    """Changes elements in the network namespace that it was made in."""

    def __init__(self, make: MakeSocket = socket.socket) -> None:
        self._make = make

    def feed(self, lines: str) -> None:
        """Do what nft would with lines of elements, all of it or nothing. Raises FirewallError."""
        batch, sets = _batch(sorted(map(_element, lines.splitlines()), key=_place))
        try:
            with talk(self._make, len(batch)) as say:
                answers = say(batch)
        except OSError as exc:
            raise FirewallError(f"nftables: table bridge {TABLE}: {exc.strerror}") from exc
        for number, error in answers:
            if error:
                what = f"set {sets[number]}" if number in sets else "the change"
                raise FirewallError(f"nftables: table bridge {TABLE}: {what}: {os.strerror(error)}")
        if {number for number, _ in answers} < set(sets):
            raise FirewallError(f"nftables: table bridge {TABLE}: the kernel has not said what became of a change")


def _place(element: Element) -> tuple[bool, str]:
    """What is deleted goes first: a range that takes its place may overlap it."""
    return element[0] == "add", element[1]


def _batch(elements: list[Element]) -> tuple[bytes, dict[int, str]]:
    """One transaction, and the set that each of its messages is about."""
    found, sets = [message(_BEGIN, 0, 0, _NFTABLES)], {}
    for (verb, name), group in groupby(elements, key=lambda one: one[:2]):
        listed = list(group)
        for first in range(0, len(listed), MOST_IN_A_MESSAGE):
            sets[number := len(found)] = name
            body = attribute(_LIST_TABLE, text(TABLE)) + attribute(_LIST_SET, text(name))
            some = b"".join(_of_element(*one[2:]) for one in listed[first : first + MOST_IN_A_MESSAGE])
            body += attribute(_LIST_ELEMENTS | NESTED, some)
            flags = ACK | (_CREATE if verb == "add" else 0)
            found.append(message(_VERBS[verb], flags, number, family=_BRIDGE, body=body))
    return b"".join([*found, message(_END, 0, len(found), _NFTABLES)]), sets


def _of_element(key: bytes, end: bytes | None) -> bytes:
    ends = b"" if end is None else attribute(_KEY_END | NESTED, attribute(_VALUE, end))
    return attribute(_ELEMENT | NESTED, attribute(_KEY | NESTED, attribute(_VALUE, key)) + ends)


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
