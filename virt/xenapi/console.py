"""What a guest prints, and the ways to its serial line and its screen, through the pool's own HTTPS.

xapi keeps no log: what a serial line shows is what it says to somebody who has just come.
"""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import suppress
from urllib.parse import urlencode, urlsplit

from virt.doors import Doors
from virt.errors import GuestStateError, HypervisorError
from virt.spec import ConsoleAccess, InstanceSpec
from virt.threads import Threads
from virt.xenapi.errors import GoneError
from virt.xenapi.guests import Guests
from virt.xenapi.helper import HelperBase
from virt.xenapi.session import Session
from virt.xenapi.streams import STALL_S, head_of, joined, opened

TEXT, SCREEN = "vt100", "rfb"
_QUIET_S, _LISTEN_S = 0.5, 5.0


class Consoles(HelperBase):
    """Consoles of one host's guests."""

    def __init__(self, session: Session, guests: Guests, doors: Doors, threads: Threads) -> None:
        super().__init__(session)
        self._guests, self._doors, self._threads = guests, doors, threads

    def output(self, spec: InstanceSpec, max_bytes: int) -> str:
        """The end of what the serial line shows now; nothing for a guest that is off or has none."""
        guest = self._guests.find(spec)
        place = self._place(guest.ref, TEXT) if guest.power.is_on else None
        if place is None:
            return ""
        said = self._listen(place)
        text = said[-max_bytes:].decode(errors="replace") if max_bytes > 0 else ""
        return text.encode()[-max_bytes:].decode(errors="ignore") if text else ""

    def door(self, spec: InstanceSpec, protocol: str) -> ConsoleAccess:
        """A one-time way to a console. Raises GuestNotFoundError, GuestStateError."""
        guest = self._guests.find(spec)
        place = self._place(guest.ref, protocol) if guest.power.is_on else None
        if place is None:
            raise GuestStateError(f"guest {spec.name}: has no {protocol} console while it is {guest.power.name}")
        return self._doors.open(f"guest {spec.name}", lambda: self._enter(place))

    def _place(self, vm: str, protocol: str) -> str | None:
        """Where a console is; the session that opens it is in it, so it is never logged."""
        for ref in self.call("VM.get_consoles", vm):
            with suppress(GoneError):
                record = self.call("console.get_record", ref)
                if record["protocol"] == protocol:
                    parts = urlsplit(record["location"])
                    query = f"{parts.query}&{urlencode({'session_id': self.session.login().handle})}"
                    return str(parts._replace(query=query.lstrip("&")).geturl())
        return None

    def _connect(self, place: str) -> tuple[ssl.SSLSocket, bytes]:
        parts = urlsplit(place)
        if parts.scheme != "https":
            raise HypervisorError(f"{parts.hostname}: its consoles are not behind https")
        link = opened(place, self.session.context)
        try:
            request = f"CONNECT {parts.path}?{parts.query} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n"
            link.sendall(request.encode())
            answer = head_of(link, STALL_S)
        except OSError as exc:
            link.close()
            raise HypervisorError(f"{parts.hostname}: a console: {exc.strerror or exc}") from exc
        if answer.status != 200:
            link.close()
            raise HypervisorError(f"{parts.hostname}: refuses a console: HTTP {answer.reason}")
        return link, answer.rest

    def _listen(self, place: str) -> bytes:
        link, said = self._connect(place)
        deadline = time.monotonic() + _LISTEN_S
        with link, suppress(TimeoutError):
            link.settimeout(_QUIET_S)
            while time.monotonic() < deadline and (more := link.recv(65536)):
                said += more
        return said

    def _enter(self, place: str) -> int:
        """A file descriptor that is the console, as a door wants it."""
        link, first = self._connect(place)
        near, far = socket.socketpair()

        def carry() -> None:
            with link, near, suppress(OSError):  # either side has gone
                joined(link, near, first)

        self._threads.start(carry, "console:carry")
        return far.detach()
