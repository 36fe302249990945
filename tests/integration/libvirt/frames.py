"""Ethernet frames of packets of the firewall's model, each with a mark to know it again by, and a wire for them."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from ipaddress import IPv6Address, ip_address
from typing import TypeVar

from pyroute2 import netns

from tests.firewall_model import ESTABLISHED, Packet
from tests.integration.servers import LibvirtHost

BROADCAST = "ff:ff:ff:ff:ff:ff"
SYN, ACK = 2, 16
_NUMBERS = {("tcp", 4): 6, ("tcp", 6): 6, ("udp", 4): 17, ("udp", 6): 17, ("icmp", 4): 1, ("icmp", 6): 58}
_MARK = re.compile(rb"mn(\d{8})")
_ALL_PROTOCOLS = socket.htons(3)
Made = TypeVar("Made")


def frame(packet: Packet, to_mac: str, mark: int) -> bytes:
    """The frame of a packet, checksums and all. An established TCP packet is the answer to what its `dport` sent."""
    ether = _mac(to_mac) + _mac(packet.mac)
    text = b"mn%08d" % mark
    if packet.protocol == "arp":
        asked = ip_address(packet.dest).packed
        body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + _mac(packet.mac) + ip_address(packet.source).packed
        return ether + b"\x08\x06" + body + bytes(6) + asked + text
    number = _NUMBERS.get((packet.protocol, packet.family)) or int(packet.protocol)
    body = _transport(packet, number, text)
    source, dest = ip_address(packet.source).packed, ip_address(packet.dest).packed
    if packet.family == 6:
        return ether + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(body), number, 255) + source + dest + body
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), mark & 0xFFFF, 0, 64, number, 0) + source + dest
    return ether + b"\x08\x00" + head[:10] + _checksum(head) + head[12:] + body


def marks(frames: Iterable[bytes]) -> set[int]:
    """The marks in these frames."""
    return {int(found.group(1)) for one in frames if (found := _MARK.search(one))}


class Wire:
    """Raw frames in a host's network: sent into one interface, heard where they leave by those named like `seen`.

    inward: heard where they come in by them instead.
    """

    def __init__(self, host: LibvirtHost, dev: str, seen: str, *, inward: bool = False) -> None:
        self._seen, self._inward = seen, inward
        self._out, self._in = _sockets(host, dev)
        self._is_closed = False
        self.heard: list[bytes] = []
        self.marks: set[int] = set()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def send(self, *frames: bytes) -> None:
        """Put frames on the wire."""
        for one in frames:
            self._out.send(one)

    def has(self, mark: int, within_s: float = 20.0) -> bool:
        """True once a frame with this mark has come."""
        until = time.monotonic() + within_s
        while mark not in self.marks and time.monotonic() < until:
            time.sleep(0.002)
        return mark in self.marks

    def close(self) -> None:
        """Listen no more."""
        self._is_closed = True
        self._listener.join(10)
        self._out.close()
        self._in.close()

    def _listen(self) -> None:
        while not self._is_closed:
            try:
                data, (dev, _, kind, *_rest) = self._in.recvfrom(4096)
            except TimeoutError:
                continue
            if dev.startswith(self._seen) and (kind != socket.PACKET_OUTGOING) is self._inward:
                self.heard.append(data)
                self.marks |= marks([data])


class HostItself:
    """The host as the sender of packets, which its own routes lead: the frames' headers of Ethernet are left out."""

    def __init__(self, host: LibvirtHost) -> None:
        self._by_family = dict(zip((4, 6), _within(host, _raw_sockets), strict=True))

    def send(self, *frames: bytes) -> None:
        """Send the packets of these frames."""
        for one in frames:
            family = 6 if one[12:14] == b"\x86\xdd" else 4
            place = slice(38, 54) if family == 6 else slice(30, 34)
            with contextlib.suppress(PermissionError):  # so the kernel tells the sender that a filter dropped it
                self._by_family[family].sendto(one[14:], (str(ip_address(one[place])), 0))

    def close(self) -> None:
        """Send no more."""
        for one in self._by_family.values():
            one.close()


def _raw_sockets() -> tuple[socket.socket, socket.socket]:
    families = (socket.AF_INET, socket.AF_INET6)
    four, six = (socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) for family in families)
    return four, six


def _sockets(host: LibvirtHost, dev: str) -> tuple[socket.socket, socket.socket]:
    """One that sends into an interface, and one that hears everything."""

    def make() -> tuple[socket.socket, socket.socket]:
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sender.bind((dev, 0))
        receiver = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, _ALL_PROTOCOLS)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        receiver.settimeout(0.1)
        return sender, receiver

    return _within(host, make)


def _within(host: LibvirtHost, make: Callable[[], Made]) -> Made:
    """What `make` makes in the host's network namespace: a thread goes there for it, and ends."""
    made: list[Made] = []

    def go() -> None:
        netns.setns(f"/proc/{host.pid}/ns/net")
        made.append(make())

    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    return made[0]


def _transport(packet: Packet, number: int, text: bytes) -> bytes:
    if packet.protocol == "tcp":
        ack, flags = (packet.dport + 1, SYN | ACK) if packet.state == ESTABLISHED else (0, SYN)
        head = struct.pack("!HHIIBBHHH", packet.sport, packet.dport, packet.sport, ack, 5 << 4, flags, 8192, 0, 0)
        return _with_checksum(packet, number, head + text, 16)
    if packet.protocol == "udp":
        head = struct.pack("!HHHH", packet.sport, packet.dport, 8 + len(text), 0)
        return _with_checksum(packet, number, head + text, 6)
    if packet.protocol == "icmp":
        head = struct.pack("!BBHHH", packet.icmp_type, packet.icmp_code, 0, packet.sport, 1)
        target = _target(packet) if number == 58 and packet.icmp_type in {135, 136} else b""
        return _with_checksum(packet, number, head + target + text, 2)
    return text


def _target(packet: Packet) -> bytes:
    of = packet.source if packet.icmp_type == 136 else packet.dest
    return IPv6Address(of).packed


def _with_checksum(packet: Packet, number: int, body: bytes, at: int) -> bytes:
    pseudo = b""
    if number != 1:
        addresses = ip_address(packet.source).packed + ip_address(packet.dest).packed
        pseudo = addresses + struct.pack("!II", len(body), number)
    return body[:at] + _checksum(pseudo + body) + body[at + 2 :]


def _checksum(data: bytes) -> bytes:
    padded = data + bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
