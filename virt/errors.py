"""Errors that drivers and host-side building blocks raise.

`expected` errors are facts about the request or the host: the log gets one line and no traceback.
"""

from __future__ import annotations

import errno

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The errors of a file system or a quota that is full."""


class VirtError(Exception):
    """Base of everything that virt raises on purpose."""

    expected = True


class GuestNotFoundError(VirtError):
    """The hypervisor answered, and does not know this guest."""


class GuestExistsError(VirtError):
    """A guest of this name is already on the hypervisor."""


class GuestStateError(VirtError):
    """The guest is in a power state in which the hypervisor refuses this."""


class GuestAgentError(GuestStateError):
    """No agent answers in the guest: it has none, has not booted yet, or the agent hangs."""


class UnsupportedError(VirtError):
    """This driver does not have the capability that was asked for."""


class HypervisorError(VirtError):
    """The hypervisor refused or failed; the message carries its own words."""

    expected = False


class IncompatibleCpuError(HypervisorError):
    """A guest of another host's CPU cannot run on this one's; or what describes that CPU makes no sense."""

    expected = True


class HypervisorUnreachableError(HypervisorError):
    """No healthy connection: nothing is known about any guest."""

    expected = True


class DriverTimeoutError(HypervisorError):
    """A hypervisor call passed its deadline; its outcome is unknown."""

    expected = True


class ImageError(VirtError):
    """An image cannot be used: missing, of another format, unsafe or too large."""


class ImageChecksumError(ImageError):
    """What was downloaded is not what the record promised."""


class DiskError(VirtError):
    """A disk could not be made, grown or removed."""


class DiskFullError(DiskError):
    """The host has no room for what was asked."""


def disk_error(exc: OSError, what: object) -> DiskError:
    """What it is that a file could not be written, or else handled: DiskFullError where there was no room."""
    return (DiskFullError if exc.errno in NO_ROOM else DiskError)(f"{what}: {exc.strerror}")


class ProcessError(VirtError):
    """A program that the host ran failed.

    cmd: its argument list; exit_code: None when it passed its deadline; stderr: its last words.
    """

    expected = False

    def __init__(self, cmd: list[str], exit_code: int | None, stderr: str) -> None:
        how = "passed its deadline" if exit_code is None else f"exited with {exit_code}"
        super().__init__(f"{cmd[0]} {how}: {stderr.strip()[-500:]}")
        self.cmd, self.exit_code, self.stderr = cmd, exit_code, stderr


class NetworkError(VirtError):
    """A bridge, VLAN or tap could not be set up."""


class FirewallError(VirtError):
    """The host refused a change of packet filters, in its own words; what was in place before is in place."""

    expected = False


class VolumeError(VirtError):
    """A volume could not be connected or found on this host."""


class DriverConfigError(VirtError):
    """The driver cannot start with this configuration; the message names the option."""
