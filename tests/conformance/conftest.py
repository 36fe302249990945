"""Fixtures of the conformance suite: every test runs once for every target.

`-k fake-persistent` picks targets. MICRONOVA_FORBID_SKIPS=undeclared fails a test that was skipped because its target
could not be built here; =all also one whose capability is declared missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.conformance.harness import DECLARED, Target, TargetUnavailableError, World, all_targets, register
from virt.driver import ComputeDriver
from virt.spec import InstanceSpec


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "target" in metafunc.fixturenames:
        params = [pytest.param(target, id=target.name, marks=target.marks) for target in all_targets()]
        metafunc.parametrize("target", params, scope="session")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what `needs` would skip, before a guest is made for it: a test that names a capability needs it."""
    target = item.callspec.params.get("target") if hasattr(item, "callspec") else None
    if isinstance(target, Target) and isinstance(item, pytest.Function):
        absent = (target.missing | target.unable) & set(item.function.__code__.co_names)
        if absent:
            pytest.skip(f"{DECLARED}{target.name} has no {', '.join(sorted(absent))}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    forbidden = os.environ.get("MICRONOVA_FORBID_SKIPS", "")
    if report.skipped and forbidden:
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if forbidden == "all" or DECLARED not in reason:
            report.outcome, report.longrepr = "failed", f"skips are forbidden in this run: {reason}"
    return report


@pytest.fixture(scope="session")
def shared_worlds() -> Iterator[Callable[[Target], World]]:
    """Worlds that are built once a run."""
    built: dict[str, World] = {}
    with ExitStack() as stack:

        def get(target: Target) -> World:
            if target.name not in built:
                built[target.name] = stack.enter_context(target.build())
            return built[target.name]

        yield get


@pytest.fixture
def world(target: Target, shared_worlds: Callable[[Target], World]) -> Iterator[World]:
    """The target's world, with a connected driver."""
    with ExitStack() as stack:
        try:
            built = shared_worlds(target) if target.shared else stack.enter_context(target.build())
        except TargetUnavailableError as exc:
            pytest.skip(f"{target.name}: {exc}")
        register(built.driver, target)
        yield built


@pytest.fixture
def driver(world: World) -> ComputeDriver:
    return world.driver


@pytest.fixture
def make(world: World, target: Target) -> Iterator[Callable[..., InstanceSpec]]:
    """Specs of guests; a shared world's guests are removed when the test ends."""
    specs: list[InstanceSpec] = []

    def make_guest(**changes: Any) -> InstanceSpec:
        specs.append(world.make_guest(**changes))
        return specs[-1]

    yield make_guest
    if target.shared:
        for spec in specs:
            world.clean(spec)


@pytest.fixture
def guest(driver: ComputeDriver, make: Callable[..., InstanceSpec]) -> InstanceSpec:
    """A running guest."""
    spec = make()
    driver.spawn(spec)
    return spec
