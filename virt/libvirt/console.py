"""What a guest printed, and the ways to its serial line and its screen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lxml import etree

from virt.doors import Doors, local_port, terminal
from virt.errors import DiskError, GuestStateError
from virt.libvirt.domains import Domains
from virt.spec import ConsoleAccess, InstanceSpec


def tail(log: Path, max_bytes: int) -> str:
    """At most the last `max_bytes` bytes of a console log that virtlogd rotates, undecodable ones replaced."""
    try:
        newest = _end_of(log, max_bytes)
        older = _end_of(log.with_name(log.name + ".0"), max_bytes - len(newest))
    except OSError as exc:
        raise DiskError(f"{log}: {exc.strerror}") from exc
    text = (older + newest).decode(errors="replace")
    return text.encode()[-max_bytes:].decode(errors="ignore") if max_bytes > 0 else ""


def serial_door(domains: Domains, doors: Doors, spec: InstanceSpec) -> ConsoleAccess:
    """A one-time way to the guest's serial line. Raises GuestNotFoundError, GuestStateError."""
    return _door(domains, doors, spec, lambda devices: terminal(devices.find("serial/source").get("path")))


def terminal_door(domains: Domains, doors: Doors, spec: InstanceSpec, number: int) -> ConsoleAccess:
    """A one-time way to one of a container's terminals, from 0. Raises GuestNotFoundError, GuestStateError."""

    def connect(devices: Any) -> int:
        return terminal(devices.findall("console")[number].find("source").get("path"))

    return _door(domains, doors, spec, connect)


def screen_door(domains: Domains, doors: Doors, spec: InstanceSpec) -> ConsoleAccess:
    """A one-time way to the guest's screen, in the RFB protocol. Raises GuestNotFoundError, GuestStateError."""

    def connect(devices: Any) -> int:
        graphics = devices.find("graphics[@type='vnc']")
        return local_port(graphics.get("listen"), int(graphics.get("port")))

    return _door(domains, doors, spec, connect)


def _door(domains: Domains, doors: Doors, spec: InstanceSpec, connect: Callable[[Any], int]) -> ConsoleAccess:
    """A door; where it leads is read from the running guest when the client comes, so never to another guest."""

    def target() -> int:
        _refuse_unless_on(domains, spec)
        return connect(etree.fromstring(domains.live_xml(spec)).find("devices"))

    _refuse_unless_on(domains, spec)
    return doors.open(f"guest {spec.name}", target)


def _refuse_unless_on(domains: Domains, spec: InstanceSpec) -> None:
    if not domains.power(spec).is_on:
        raise GuestStateError(f"guest {spec.name}: is off, so it has no console")


def _end_of(path: Path, max_bytes: int) -> bytes:
    if max_bytes <= 0:
        return b""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - max_bytes))
            return file.read(max_bytes)
    except FileNotFoundError:
        return b""
