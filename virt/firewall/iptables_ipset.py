"""Lines of `ipset restore`, given to the kernel without ipset.

A program costs some milliseconds of CPU, and a guest that comes has a set or two of its own. pyroute2 has these
messages, one for each element: ten rules take it as long as a program.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_network
from itertools import groupby

from virt.errors import FirewallError
from virt.firewall.netfilter import (
    ACK,
    MOST_IN_A_MESSAGE,
    NESTED,
    NETWORK_ORDER,
    MakeSocket,
    attribute,
    message,
    talk,
    text,
)

_IPSET, _PROTOCOL_VERSION = 6, b"\7"
_VERBS = {"create": 2, "destroy": 3, "flush": 4, "add": 9, "del": 10}
_PROTOCOL, _NAME, _TYPE, _REVISION, _FAMILY, _DATA, _ELEMENTS, _LINE = 1, 2, 3, 4, 5, 7, 8, 9
_ADDRESS, _LENGTH, _PORT, _PORT_PROTOCOL, _HASH_SIZE, _MOST = 1, 3, 4, 7, 18, 19
_REVISION_5 = b"\5"  # of both types of sets: kernels have it since 3.14, and ipset reads no older ones
_SOCKET_FAMILY = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
_OWN_ERRORS = {
    4099: "there are as many sets as the kernel has room for",
    4100: "it is in use",
    4102: "it is of another type",
    4103: "it is there, or the element is, or is not",
    4352: "Hash is full",
}

Line = tuple[str, ...]


class SetSocket:
    """Changes sets in the network namespace that `make` makes its sockets in."""

    def __init__(self, make: MakeSocket = socket.socket) -> None:
        self._make = make

    def feed(self, lines: str) -> None:
        """Do what `ipset restore` would with these lines, in order, up to one that fails. Raises FirewallError."""
        asked = [(name, message(_IPSET << 8 | verb, ACK, 0, family=socket.AF_INET, body=body))
                 for verb, name, body in _asked(lines)]  # fmt: skip
        try:
            with talk(self._make, max(len(one) for _, one in asked)) as say:
                for name, one in asked:
                    _demand(name, say(one))
        except OSError as exc:
            raise FirewallError(f"ipset: {exc.strerror}") from exc


def _demand(name: str, answers: list[tuple[int, int]]) -> None:
    if not answers:
        raise FirewallError(f"ipset: set {name}: the kernel has not said what became of a change")
    ((_, error),) = answers
    if error:
        raise FirewallError(f"ipset: set {name}: {_OWN_ERRORS.get(error) or os.strerror(error)}")


def _asked(lines: str) -> Iterator[tuple[int, str, bytes]]:
    """Verb, set and body of each message: elements that are added to a set, or taken out, go together."""
    split = [tuple(line.split()) for line in lines.splitlines()]
    for (verb, name), group in groupby(split, key=lambda words: words[:2]):
        head = attribute(_PROTOCOL, _PROTOCOL_VERSION) + attribute(_NAME, text(name))
        some = list(group)
        if verb == "create":
            head += _made(some[0])
        if verb not in {"add", "del"}:
            yield _VERBS[verb], name, head
            continue
        for first in range(0, len(some), MOST_IN_A_MESSAGE):
            elements = b"".join(_element(words[2]) for words in some[first : first + MOST_IN_A_MESSAGE])
            yield _VERBS[verb], name, head + _number(_LINE, 0) + attribute(_ELEMENTS | NESTED, elements)


def _made(words: Line) -> bytes:
    """`create NAME TYPE family FAMILY hashsize BUCKETS maxelem ELEMENTS -exist`."""
    _, _, kind, _, family, _, buckets, _, most, _ = words
    what = attribute(_TYPE, text(kind)) + attribute(_REVISION, _REVISION_5)
    what += attribute(_FAMILY, bytes([_SOCKET_FAMILY[family]]))
    return what + attribute(_DATA | NESTED, _number(_HASH_SIZE, int(buckets)) + _number(_MOST, int(most)))


def _element(words: str) -> bytes:
    """A network, and in a set of networks and ports its protocol and port: `10.0.0.0/8,tcp:80`."""
    network, _, port = words.partition(",")
    parsed = ip_network(network)
    address = attribute(NETWORK_ORDER | (1 if parsed.version == 4 else 2), parsed.network_address.packed)
    found = attribute(_ADDRESS | NESTED, address) + attribute(_LENGTH, bytes([parsed.prefixlen]))
    if port:
        protocol, _, number = port.partition(":")
        found += attribute(_PORT | NETWORK_ORDER, struct.pack(">H", int(number)))
        found += attribute(_PORT_PROTOCOL, bytes([_PROTOCOLS[protocol]]))
    return attribute(_DATA | NESTED, found)


def _number(kind: int, value: int) -> bytes:
    return attribute(kind | NETWORK_ORDER, struct.pack(">I", value))
