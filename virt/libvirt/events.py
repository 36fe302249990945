"""Hears from libvirt what happens to guests, over a connection of its own that hangs with nobody else."""

from __future__ import annotations

import logging
from contextlib import suppress

from virt.driver import Told
from virt.errors import VirtError
from virt.libvirt import host as lv

LOG = logging.getLogger(__name__)
_CALLS = 2


class Watch:
    """Listens to one libvirt. `renew` is called again and again; it costs nothing while the connection lives."""

    def __init__(self, host: lv.Host) -> None:
        self._host = host.another(_CALLS)
        self._heard: tuple[lv.Connection, int] | None = None
        self._closed = False

    def renew(self, told: Told) -> None:
        """Listen, unless we do: then `told(None)`, since nobody knows what happened before.

        Raises HypervisorUnreachableError, DriverTimeoutError.
        """
        if self._closed or (self._heard is not None and lv.is_alive(self._heard[0])):
            return
        self._heard = None

        def listen(connection: lv.Connection) -> tuple[lv.Connection, int]:
            return connection, lv.listen(connection, told)

        self._heard = self._host.call("(events)", listen)
        LOG.debug("libvirt: listening to events of %s", self._host.uri)
        told(None)

    def close(self) -> None:
        """Listen no more."""
        self._closed, heard, self._heard = True, self._heard, None
        if heard is not None and lv.is_alive(heard[0]):
            with suppress(VirtError):  # the connection went, and the listening with it
                self._host.call("(events)", lambda connection: lv.stop_listening(connection, *heard))
        self._host.close()
