"""Errors as xapi answers them: a code and its parameters, all strings."""

from __future__ import annotations

NULL = "OpaqueRef:NULL"


class ApiError(Exception):
    """What the caller gets as ErrorDescription."""

    def __init__(self, code: str, *params: str) -> None:
        super().__init__(code, *params)
        self.code = code
        self.params = params

    @property
    def description(self) -> list[str]:
        """The code, then its parameters."""
        return [self.code, *self.params]


class ConnectionDroppedError(Exception):
    """The connection is to be closed without an answer."""


def storage_full() -> ApiError:
    """What a storage backend without room says."""
    return ApiError("SR_BACKEND_FAILURE_44", "", "There is insufficient space", "")


def handle_invalid(kind: str, ref: str) -> ApiError:
    """A reference to nothing."""
    return ApiError("HANDLE_INVALID", kind, ref)


def internal_error(message: str) -> ApiError:
    """xapi's word for what it did not expect."""
    return ApiError("INTERNAL_ERROR", message)


def bad_power_state(vm: str, expected: list[str], actual: str) -> ApiError:
    """The VM is not in one of the expected states."""
    return ApiError("VM_BAD_POWER_STATE", vm, ", ".join(expected).lower(), actual.lower())


def busy(kind: str, ref: str, operation: str) -> ApiError:
    """Something else is being done to the object."""
    return ApiError("OTHER_OPERATION_IN_PROGRESS", kind, ref, operation)
