"""What the database's errors mean to callers of the compute service: the same fact, in compute.errors' classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from compute import errors
from db import errors as db_errors

_MISSING: Mapping[str, type[errors.NotFoundError]] = {
    "instance": errors.InstanceNotFoundError,
    "instance type": errors.FlavorNotFoundError,
    "image": errors.ImageNotFoundError,
    "network": errors.NetworkNotFoundError,
    "key pair": errors.KeyPairNotFoundError,
    "security group": errors.SecurityGroupNotFoundError,
    "server group": errors.ServerGroupNotFoundError,
    "volume": errors.VolumeNotFoundError,
    "action": errors.ActionNotFoundError,
}
_MEANING: tuple[tuple[type[db_errors.DatabaseError], type[errors.ComputeError]], ...] = (
    (db_errors.RowInUseError, errors.InUseError),
    (db_errors.VolumeInUseError, errors.InUseError),
    (db_errors.VolumeStatusError, errors.InvalidStateError),
    (db_errors.VolumeElsewhereError, errors.InvalidStateError),
    (db_errors.MountpointTakenError, errors.InUseError),
    (db_errors.AddressPoolEmptyError, errors.ConflictError),
    (db_errors.AddressUnavailableError, errors.ConflictError),
    (db_errors.DuplicateRowError, errors.DuplicateError),
    (db_errors.InvalidNetworkError, errors.InvalidInputError),
    (db_errors.DatabaseUnreachableError, errors.UnreachableError),
)


@contextmanager
def translated(*, duplicate: str = "") -> Iterator[None]:
    """Raise compute.errors for what the database layer raises inside; `duplicate` is said when a name is taken."""
    try:
        yield
    except db_errors.DatabaseError as exc:
        raise meaning(exc, duplicate=duplicate) from exc


def meaning(exc: db_errors.DatabaseError, *, duplicate: str = "") -> errors.ComputeError:
    """The compute error that says the same."""
    if isinstance(exc, db_errors.RowNotFoundError):
        return _MISSING.get(exc.kind, errors.NotFoundError)(f"no {exc.kind} {exc.key!s:.80}")
    if isinstance(exc, db_errors.DuplicateRowError) and duplicate:
        return errors.DuplicateError(duplicate)
    for kind, answer in _MEANING:
        if isinstance(exc, kind):
            return answer(str(exc))
    return errors.ComputeError(str(exc))
