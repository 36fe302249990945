"""What a fake host holds without a guest, and guests that lack something."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from virt.errors import GuestExistsError
from virt.fake.hypervisor import FakeHypervisor
from virt.spec import InstanceSpec


def stray(host: FakeHypervisor, known: Collection[str]) -> list[str]:
    """Names under which there is something, but no guest and none that is known."""
    return sorted(name for name in host.leftovers() if name not in known)


def remove_stray(host: FakeHypervisor, name: str) -> None:
    """Hold nothing under this name, not even what a resize kept. Raises GuestExistsError."""
    with host.lock:
        held = host.held(name)
        if held is None:
            return
        if held.domain is not None:
            raise GuestExistsError(f"{host.host} has a guest {name}")
        held.kept = None
        host.erase(held)


def missing(host: FakeHypervisor, specs: Sequence[InstanceSpec]) -> list[tuple[str, str]]:
    """Guests that should be here and have no disks."""
    return [(spec.name, "its disks are missing") for spec in specs if not _has_disks(host, spec.name)]


def _has_disks(host: FakeHypervisor, name: str) -> bool:
    held = host.held(name)
    return held is not None and bool(held.disks or held.kept)
