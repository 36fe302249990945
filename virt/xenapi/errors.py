"""What xapi says when it refuses, as errors of ours. The one table of its codes that the driver tells apart."""

from __future__ import annotations

from collections.abc import Sequence

from virt.errors import (
    DiskError,
    DiskFullError,
    DriverTimeoutError,
    GuestNotFoundError,
    GuestStateError,
    HypervisorError,
    HypervisorUnreachableError,
    NetworkError,
)


class XapiError(HypervisorError):
    """xapi refused. code: its word for the reason; details: what it says about it, references among that."""

    def __init__(self, message: str, code: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.code, self.details = code, tuple(details)


class GoneError(XapiError):
    """A reference or uuid that means nothing (any more)."""

    expected = True


class GuestGoneError(GoneError, GuestNotFoundError):
    """The same of a VM."""


class WrongStateError(XapiError, GuestStateError):
    """The VM is in a state, or busy with something, in which xapi refuses this."""

    expected = True


class StorageError(XapiError, DiskError):
    """A storage repository or a disk in it refused."""

    expected = True


class StorageFullError(XapiError, DiskFullError):
    """A storage repository has no room."""

    expected = True


class NetworkRefusedError(XapiError, NetworkError):
    """A network or an interface on it was refused."""

    expected = True


class CredentialsError(HypervisorUnreachableError):
    """The pool does not let us in: wrong user or password."""


class LostReplyError(DriverTimeoutError):
    """A call was sent and its answer never came: what it was to do may be done or not."""


_KINDS: dict[str, type[XapiError]] = {
    "HANDLE_INVALID": GoneError,
    "UUID_INVALID": GoneError,
    "VM_BAD_POWER_STATE": WrongStateError,
    "OPERATION_NOT_ALLOWED": WrongStateError,
    "OPERATION_BLOCKED": WrongStateError,
    "OTHER_OPERATION_IN_PROGRESS": WrongStateError,
    "VM_IS_TEMPLATE": WrongStateError,
    "VM_LACKS_FEATURE": WrongStateError,
    "VM_LACKS_FEATURE_SHUTDOWN": WrongStateError,
    "VM_LACKS_FEATURE_SUSPEND": WrongStateError,
    "VM_MISSING_PV_DRIVERS": WrongStateError,
    "VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT": WrongStateError,
    "VM_SHUTDOWN_TIMEOUT": WrongStateError,
    "SR_FULL": StorageFullError,
    "SR_BACKEND_FAILURE_44": StorageFullError,
    "MAC_INVALID": NetworkRefusedError,
    "MAC_STILL_EXISTS": NetworkRefusedError,
    "NETWORK_ALREADY_CONNECTED": NetworkRefusedError,
}
_PREFIXES: dict[str, type[XapiError]] = {
    "SR_": StorageError,
    "VDI_": StorageError,
    "NETWORK_": NetworkRefusedError,
    "PIF_": NetworkRefusedError,
    "VLAN_": NetworkRefusedError,
}
_NOT_FOR_EYES = "OpaqueRef:"


def refusal(what: str, description: Sequence[str]) -> XapiError:
    """The error for what xapi said (a code and its details) to `what`."""
    code, details = (description[0], [str(detail) for detail in description[1:]]) if description else ("", [])
    words = [detail for detail in details if detail and not detail.startswith(_NOT_FOR_EYES)]
    message = f"{what}: {code or 'no reason given'}" + (f": {', '.join(words)}" if words else "")
    return _kind(code, details)(message, code, details)


def _kind(code: str, details: Sequence[str]) -> type[XapiError]:
    found = _KINDS.get(code) or next((kind for prefix, kind in _PREFIXES.items() if code.startswith(prefix)), XapiError)
    return GuestGoneError if found is GoneError and details[:1] == ["VM"] else found
