"""DHCP servers: one dnsmasq a network. It outlives this process, and the next one takes it over."""

from __future__ import annotations

import logging
import os
import select
import signal
from collections.abc import Sequence
from pathlib import Path

from virt.errors import NetworkError, ProcessError
from virt.execute import Execute
from virt.network.dhcp import DhcpOptions, Folder, arguments
from virt.spec import Network

LOG = logging.getLogger(__name__)

_START_S, _STOP_S, _RELEASE_S = 15.0, 5.0, 5.0


class Dnsmasq:
    """The DHCP servers of one network namespace."""

    def __init__(self, options: DhcpOptions, execute: Execute, inside: Sequence[str] = ()) -> None:
        """inside: the words before a command that run it in the namespace."""
        self._options, self._execute, self._inside = options, execute, list(inside)

    def ensure(self, network: Network, folder: Folder) -> None:
        """Have the server run as the network is now; one that does runs on. Raises NetworkError."""
        wanted = arguments(network, folder, self._options)
        pid = running(folder)
        if pid is not None and _command(pid) == wanted:
            return
        if pid is not None:
            LOG.info("network %s: its DHCP server is started anew, for the network is another", network.label)
            self.stop(network, folder)
        try:
            self._execute([*self._inside, *wanted], timeout_s=_START_S)
        except ProcessError as exc:
            raise NetworkError(f"network {network.label}: no DHCP server on {network.bridge}: {exc}") from exc
        LOG.info("network %s: DHCP server started on %s", network.label, network.bridge)

    def forget(self, network: Network, folder: Folder, leases: Sequence[tuple[str, str]]) -> None:
        """Have the server read its hosts anew, and end the leases of these (MAC, address) that are no hosts any more.

        A lease outlives its host's line otherwise, and dnsmasq gives an address that is leased to nobody else. Raises
        NetworkError.
        """
        if not leases or not self.read_hosts(folder):
            return
        try:
            for mac, address in leases:
                self._execute([*self._inside, "dhcp_release", network.bridge, address, mac], timeout_s=_RELEASE_S)
        except ProcessError as exc:
            LOG.warning("network %s: its DHCP server is started anew, for a lease stays: %s", network.label, exc)
            self.stop(network, folder)
            folder.leases.unlink(missing_ok=True)  # guests that renew theirs are known by their hosts' lines
            self.ensure(network, folder)

    def read_hosts(self, folder: Folder) -> bool:
        """Have the server be true to its hosts from now on; False when it does not run."""
        pid = running(folder)
        if pid is None:
            return False
        _signal(pid, folder, signal.SIGHUP)
        return True

    def stop(self, network: Network, folder: Folder) -> None:
        """End the server; succeed if it has ended. Raises NetworkError when it does not end."""
        pid = running(folder)
        signals = (signal.SIGTERM, signal.SIGKILL)
        if pid is not None and not any(_signal(pid, folder, number, _STOP_S) for number in signals):
            raise NetworkError(f"network {network.label}: its DHCP server (process {pid}) does not end")
        folder.pid.unlink(missing_ok=True)


def running(folder: Folder) -> int | None:
    """The process id of the folder's server, if it runs: a number in a file may be some other process by now."""
    try:
        pid = int(folder.pid.read_text())
    except (OSError, ValueError):
        return None
    return pid if f"--pid-file={folder.pid}" in _command(pid) else None


def _command(pid: int) -> list[str]:
    """A process's command line; empty when there is none or it is a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def _signal(pid: int, folder: Folder, number: signal.Signals, wait_s: float = 0.0) -> bool:
    """Signal the folder's server, and nothing else that may have got its number; True when it has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        if running(folder) != pid:
            return True
        signal.pidfd_send_signal(descriptor, number)
        return wait_s > 0 and bool(select.select([descriptor], [], [], wait_s)[0])
    except ProcessLookupError:
        return True
    finally:
        os.close(descriptor)
