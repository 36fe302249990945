"""The fake driver: in memory, and with its world in files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from tests.builders import a_guest, a_vif, a_volume, an_image
from tests.conformance.harness import Target, World
from virt.fake.driver import FakeDriver
from virt.fake.hypervisor import FakeCloud
from virt.power_state import Power
from virt.spec import InstanceSpec, Vif, VolumeAttachment


class FakeWorld(World):
    """Two fake hosts: `here` and `other`."""

    def __init__(self, cloud: FakeCloud) -> None:
        self.driver: FakeDriver = FakeDriver(cloud)
        self._other = FakeDriver(cloud)
        self.driver.init_host(self.this_host)
        self._other.init_host(self.other_host)

    def close(self) -> None:
        self.driver.close()
        self._other.close()

    def second(self) -> FakeDriver:
        return self._other

    def make_guest(self, **changes: Any) -> InstanceSpec:
        return a_guest(**changes)

    def broken_guest(self, **changes: Any) -> InstanceSpec:
        return a_guest(**({"image": an_image(location="/nonexistent")} | changes))

    def make_volume(self, **changes: Any) -> VolumeAttachment:
        return a_volume(**changes)

    def make_vif(self) -> Vif:
        return a_vif()

    def make_foreign_guest(self) -> str:
        self.driver.hypervisor.make_foreign_guest("somebody-elses")
        return "somebody-elses"

    def leftovers(self, spec: InstanceSpec) -> list[str]:
        held = self.driver.hypervisor.held(spec.name)
        if held is None:
            return []
        parts = ("domain", "disks", "taps", "volumes", "filters", "kept", "reserved_mb", "snapshots")
        return [part for part in parts if getattr(held, part)] or ["an empty footprint"]

    def shut_down_inside(self, name: str) -> None:
        self.driver.hypervisor.turn(name, Power.SHUTOFF)

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        self.driver.faults.unreachable()
        yield
        self.driver.faults.unreachable(False)

    def share_storage(self) -> None:
        """Fake hosts always do."""

    def leave_files(self, spec: InstanceSpec) -> None:
        held = self.driver.hypervisor.new_footprint(spec.name)
        held.disks["root"] = self.driver.hypervisor.new_disk(1)
        self.driver.hypervisor.save(held)

    def wait_for_agent(self, spec: InstanceSpec) -> None:
        """There from the start."""

    def make_deaf(self, name: str) -> None:
        self.driver.hypervisor.make_deaf(name)

    def contents(self, name: str) -> str:
        for driver in (self.driver, self._other):
            held = driver.hypervisor.held(name)
            if held is not None and held.domain is not None:
                return held.disks["root"].contents
        raise AssertionError(f"guest {name} is on neither host")


@contextmanager
def build(*, persistent: bool) -> Iterator[FakeWorld]:
    """A fresh cloud."""
    with tempfile.TemporaryDirectory() as path:
        world = FakeWorld(FakeCloud(path if persistent else None))
        yield world
        world.close()


NOT_LOST = frozenset({"lose_events"})
TARGETS = [
    Target(name="fake", build=partial(build, persistent=False), missing_helpers=NOT_LOST),
    Target(name="fake-persistent", build=partial(build, persistent=True), missing_helpers=NOT_LOST),
]
