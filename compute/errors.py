"""What callers of the compute service are told: each error says what is wrong with what.

Every class takes one message, so that it crosses the message bus as itself. `expected` errors are answers, not
accidents: the log gets one line. `exit_code` is what nova-manage ends with.
"""

from __future__ import annotations


class ComputeError(Exception):
    """Base of what the compute service raises on purpose."""

    expected = True
    exit_code = 1


class InvalidInputError(ComputeError):
    """An argument is not what it must be."""

    exit_code = 2


class NotFoundError(ComputeError):
    """There is no such thing, or the caller may not know of it."""

    exit_code = 3


class InstanceNotFoundError(NotFoundError):
    """No such instance."""


class ImageNotFoundError(NotFoundError):
    """No such image."""


class FlavorNotFoundError(NotFoundError):
    """No such instance type."""


class NetworkNotFoundError(NotFoundError):
    """No such network."""


class HostNotFoundError(NotFoundError):
    """No such compute host."""


class VolumeNotFoundError(NotFoundError):
    """No such volume."""


class SecurityGroupNotFoundError(NotFoundError):
    """No such security group."""


class KeyPairNotFoundError(NotFoundError):
    """No such key pair."""


class ServerGroupNotFoundError(NotFoundError):
    """No such server group."""


class MigrationNotFoundError(NotFoundError):
    """No migration in the state that this needs."""


class ActionNotFoundError(NotFoundError):
    """No such action."""


class ConflictError(ComputeError):
    """The request is sound, the state of things forbids it now."""

    exit_code = 4


class InstanceLockedError(ConflictError):
    """The instance is locked, and the caller is no administrator."""


class InstanceBusyError(ConflictError):
    """Another operation holds the instance."""


class InvalidStateError(ConflictError):
    """The instance's state does not allow this."""


class InUseError(ConflictError):
    """Something else still needs it."""


class DuplicateError(ConflictError):
    """The name is taken."""


class QuotaError(ConflictError):
    """The project may not have that much."""


class NotAuthorizedError(ComputeError):
    """The caller may not do this."""


class NoValidHostError(ComputeError):
    """No host can take the instance; the message says why each was refused."""


class BuildFailedError(ComputeError):
    """The instance could not be built on any host that was tried."""


class MigrationError(ComputeError):
    """The guest could not be moved; the message says where it is."""


class AbortedError(ComputeError):
    """The operation was aborted: a delete outranked it, the daemon stops, or its deadline passed."""


class ClaimLostError(ConflictError):
    """This work order was taken before: a repeated or late message. Nothing was done."""


class UnreachableError(ComputeError):
    """The host's daemon, the broker or the database does not answer."""

    exit_code = 5


class ConfigError(ComputeError):
    """The service cannot start with this configuration; the message names the option."""


class HostConflictError(ComputeError):
    """Another daemon owns this host, or this daemon belongs to another host."""
