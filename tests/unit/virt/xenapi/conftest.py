"""A simulated pool with a daemon's driver on each of its two hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance.targets.xenapi import XenWorld
from virt.spec import InstanceSpec


@pytest.fixture
def world(tmp_path: Path) -> Iterator[XenWorld]:
    """Both hosts keep their guests' disks on the shared storage."""
    made = XenWorld(tmp_path, is_shared=True)
    yield made
    made.close()


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[XenWorld]:
    """Each host keeps its guests' disks on a storage of its own."""
    made = XenWorld(tmp_path, is_shared=False)
    yield made
    made.close()


@pytest.fixture
def driver(world: XenWorld):
    return world.driver


@pytest.fixture
def guest(world: XenWorld) -> InstanceSpec:
    """A running guest on the first host."""
    spec = world.make_guest()
    world.driver.spawn(spec)
    return spec


@pytest.fixture
def ours(world: XenWorld) -> Callable[[], dict[str, list[str]]]:
    """The labels of everything in the pool that is not the pool's own."""
    before = {kind: set(world.pool.records(kind)) for kind in ("VM", "VDI", "VBD", "VIF", "SR", "PBD")}

    def look() -> dict[str, list[str]]:
        found = {}
        for kind, known in before.items():
            new = [record for ref, record in world.pool.records(kind).items() if ref not in known]
            if new:
                found[kind] = sorted(record.get("name_label", record["uuid"]) for record in new)
        return found

    return look
