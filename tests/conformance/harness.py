"""What a driver needs to run the conformance suite: a target, and the world that its driver acts on.

To add a driver, put a module into tests/conformance/targets with `TARGETS`, a list of Target.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.conformance import targets
from virt.driver import Capability, ComputeDriver, capabilities_of, require
from virt.spec import InstanceSpec, Vif, VolumeAttachment

DECLARED = "declared missing: "


class TargetUnavailableError(Exception):
    """This machine cannot run the target; the message says what is missing."""


class World(ABC):
    """A driver and what is behind it.

    `driver` is connected. What a world cannot do is in its target's `missing_helpers`, by the method's name.
    """

    driver: ComputeDriver
    this_host = "here"
    """The name of `driver`'s own host, for a resize that stays on it."""
    other_host = "other"
    """The name by which `driver` reaches the host of `second`."""

    @abstractmethod
    def make_guest(self, **changes: Any) -> InstanceSpec:
        """A spec that this driver can spawn, with a name of its own."""

    @abstractmethod
    def broken_guest(self, **changes: Any) -> InstanceSpec:
        """The same with an image that cannot be had."""

    @abstractmethod
    def make_volume(self, **changes: Any) -> VolumeAttachment:
        """A volume that exists and is free."""

    @abstractmethod
    def make_vif(self) -> Vif:
        """An interface on a network that the host has."""

    @abstractmethod
    def leftovers(self, spec: InstanceSpec) -> list[str]:
        """What the host holds of a guest: disks, taps, filters, the guest itself, in words."""

    def clean(self, spec: InstanceSpec) -> None:
        """Remove a test's guest from a shared world, wherever the test left it."""
        self.driver.destroy(spec)

    def second(self) -> ComputeDriver:
        """The driver of another host, which guests can be moved to."""
        raise NotImplementedError("second: declare it in missing_helpers")

    def make_foreign_guest(self) -> str:
        """Someone else's guest on this host; its name."""
        raise NotImplementedError("make_foreign_guest: declare it in missing_helpers")

    def shut_down_inside(self, name: str) -> None:
        """The guest's owner shuts it down."""
        raise NotImplementedError("shut_down_inside: declare it in missing_helpers")

    def cut_off(self) -> AbstractContextManager[None]:
        """While entered, the hypervisor does not answer."""
        raise NotImplementedError("cut_off: declare it in missing_helpers")

    def wait_for_agent(self, spec: InstanceSpec) -> None:
        """Return when the agent in the guest answers."""
        raise NotImplementedError("wait_for_agent: declare it in missing_helpers")

    def make_deaf(self, name: str) -> None:
        """The guest ignores ACPI requests from now on."""
        raise NotImplementedError("make_deaf: declare it in missing_helpers")

    def leave_files(self, spec: InstanceSpec) -> None:
        """Leave what a guest that is gone should have taken along."""
        raise NotImplementedError("leave_files: declare it in missing_helpers")

    def share_storage(self) -> None:
        """See to it that `second` sees the instances directory of `driver`."""
        raise NotImplementedError("share_storage: declare it in missing_helpers")

    def lose_events(self) -> None:
        """The hypervisor goes away for a moment, and with it who listens to its events."""
        raise NotImplementedError("lose_events: declare it in missing_helpers")

    def contents(self, name: str) -> str:
        """Something that identifies the data on a guest's root disk."""
        raise NotImplementedError("contents: declare it in missing_helpers")


@dataclass(frozen=True, kw_only=True)
class Target:
    """A driver under test. build: a context manager that yields a World, raising TargetUnavailableError.

    missing: exactly the capabilities that the driver does not have. unable: those that it has, and its hypervisor has
    not. unable_methods: the same for single methods, which raise UnsupportedError. shared: build the world once a run,
    since that is slow; each test removes its guests. marks: `pytest.mark.real` and the like.
    """

    name: str
    build: Callable[[], AbstractContextManager[World]]
    missing: frozenset[str] = frozenset()
    unable: frozenset[str] = frozenset()
    unable_methods: frozenset[str] = frozenset()
    missing_helpers: frozenset[str] = frozenset()
    shared: bool = False
    marks: tuple[pytest.MarkDecorator, ...] = ()


_target_of: dict[int, Target] = {}


def all_targets() -> list[Target]:
    """Every target that a module of `targets` registers, by name."""
    modules = (importlib.import_module(f"{targets.__name__}.{found.name}") for found in _found())
    return sorted((target for module in modules for target in module.TARGETS), key=lambda target: target.name)


def _found() -> list[pkgutil.ModuleInfo]:
    return list(pkgutil.iter_modules(targets.__path__))


def register(driver: ComputeDriver, target: Target) -> None:
    """Note which target a driver belongs to, for `needs`."""
    _target_of[id(driver)] = target


def needs(driver: ComputeDriver, capability: type[Capability]) -> Capability:
    """The driver as `capability`; skips the test exactly when its target declares that it has none."""
    target = _target_of[id(driver)]
    if capability.__name__ in target.missing:
        pytest.skip(f"{DECLARED}{target.name} has no {capability.__name__}")
    if capability.__name__ in target.unable:
        pytest.skip(f"{DECLARED}the hypervisor of {target.name} is not able to do {capability.__name__}")
    return require(driver, capability)


def needs_method(driver: ComputeDriver, method: str) -> None:
    """Skip the test exactly when the driver's target declares that its hypervisor cannot do this."""
    target = _target_of[id(driver)]
    if method in target.unable_methods:
        pytest.skip(f"{DECLARED}the hypervisor of {target.name} is not able to do {method}")


def unable_methods(driver: ComputeDriver) -> frozenset[str]:
    """The methods that the driver's target declares its hypervisor unable to do."""
    return _target_of[id(driver)].unable_methods


def needs_helper(world: World, *helpers: str) -> None:
    """Skip the test exactly when the world's target declares that it has not got these helpers."""
    target = _target_of[id(world.driver)]
    if absent := target.missing_helpers.intersection(helpers):
        pytest.skip(f"{DECLARED}{target.name}'s world cannot {', '.join(sorted(absent))}")


def undeclared(driver: ComputeDriver, target: Target, every: frozenset[str]) -> dict[str, frozenset[str]]:
    """How the declared table and the driver differ; empty when they agree."""
    actual = every - capabilities_of(driver)
    return {
        kind: names for kind, names in (("has", target.missing - actual), ("lacks", actual - target.missing)) if names
    }
