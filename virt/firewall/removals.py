"""Hears when somebody takes what guests are filtered by out of the kernel, as `nft flush ruleset` does.

The kernel tells of every change of nftables. Listened for is what nobody does who only changes rules of his own: that a
table which guests are behind goes, or a rule of the chain that holds while libvirt moves its own (backstop.py).
Changes by the legacy iptables are not told.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

from virt.firewall.backstop import CHAIN

_NETFILTER, _NFTABLES_GROUP, _NFTABLES = 12, 7, 10  # NETLINK_NETFILTER, NFNLGRP_NFTABLES, NFNL_SUBSYS_NFTABLES
_TABLE_GONE, _RULE_GONE = _NFTABLES << 8 | 2, _NFTABLES << 8 | 8
_BRIDGE = 7
_TABLES = {
    (socket.AF_INET, "filter"),
    (socket.AF_INET6, "filter"),
    (_BRIDGE, "micronova"),
    (_BRIDGE, "micronova_guard"),
}
_HEAD, _ATTRIBUTE = struct.Struct("=IHHIIBBH"), struct.Struct("=HH")
_BUFFER = 8 * 1024**2


class Removals:
    """A subscription to the kernel's changes of packet filters; to be waited for as a file is. Raises OSError."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETFILTER)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            self._socket.bind((0, 1 << _NFTABLES_GROUP - 1))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """What to wait for."""
        return self._socket.fileno()

    def heard(self) -> bool:
        """Read what was told until now: True if filters were removed, or something could not be heard."""
        found = False
        while True:
            try:
                data = self._socket.recv(1 << 17)
            except BlockingIOError:
                return found
            except OSError as exc:
                if exc.errno != errno.ENOBUFS:
                    raise
                found = True
            else:
                found = is_removal(data) or found

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


def is_removal(data: bytes) -> bool:
    """True when messages of the kernel, as they come, tell of filters of guests that were removed."""
    at = 0
    while at + _HEAD.size <= len(data):
        length, kind, _, _, _, family, _, _ = _HEAD.unpack_from(data, at)
        if kind in {_TABLE_GONE, _RULE_GONE}:
            names = list(_names(data[at + _HEAD.size : at + length]))
            if (kind == _TABLE_GONE and (family, names[0]) in _TABLES) or (kind == _RULE_GONE and names[1] == CHAIN):
                return True
        at += max(_padded(length), _HEAD.size)
    return False


def _names(body: bytes) -> Iterator[str]:
    """The attributes of a message as text; its first are the names of a table, and of a chain when it is of a rule."""
    at = 0
    while at + _ATTRIBUTE.size <= len(body):
        length, _ = _ATTRIBUTE.unpack_from(body, at)
        yield body[at + _ATTRIBUTE.size : at + length].rstrip(b"\0").decode(errors="replace")
        at += max(_padded(length), _ATTRIBUTE.size)


def _padded(length: int) -> int:
    return (length + 3) & ~3
