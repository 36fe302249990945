"""Every call of an operation fails in turn, and loses its answer in turn.

A spawn leaves a running guest or nothing. Anything else, done again when the pool is well, ends as it should, and what
it made can be removed without a trace.
"""

from __future__ import annotations

import dataclasses
import itertools
import os

import pytest

from virt.errors import GuestNotFoundError, VirtError
from virt.power_state import Power

TRANSFERS = ("PUT ", "GET ", "CONNECT ")


def steps_of(world, work):
    """The calls that some work makes, each with how often it was made before: what a fault can be aimed at."""
    before = len(world.pool.calls)
    work()
    counts, steps = {}, []
    for call in world.pool.calls[before:]:
        method = call.method.removeprefix("Async.")
        counts[method] = counts.get(method, 0) + 1
        if not method.startswith(TRANSFERS):
            steps.append((method, counts[method]))
    return steps


def telling(steps):
    """Some of the steps, unless MICRONOVA_EVERY_FAULT is set: of those that only ask fewer, for they are alike."""
    if os.environ.get("MICRONOVA_EVERY_FAULT"):
        return steps
    asking = [step for step in steps if ".get_" in step[0]]
    changing = [step for step in steps if step not in asking]
    return [*changing[::3], *asking[::16]]


def disturb(world, kind, method, nth):
    """Have the nth call of a method fail, or lose its answer."""
    if kind == "fail":
        world.pool.faults.fail(method, "INTERNAL_ERROR", "injected", nth=nth)
    else:
        world.pool.faults.lose_reply(method, nth=nth)


def attempt(work):
    """The error that some work ended with."""
    try:
        work()
    except VirtError as exc:
        return exc
    return None


def power_of(driver, spec):
    try:
        return driver.get_info(spec.name).power
    except GuestNotFoundError:
        return None


@pytest.mark.parametrize("kind", ["fail", "lose"])
def test_a_spawn_that_is_disturbed_at_any_call_leaves_a_running_guest_or_nothing(world, ours, kind):
    rehearsal = world.make_guest()
    steps = steps_of(world, lambda: world.driver.spawn(rehearsal))
    world.driver.destroy(rehearsal)
    assert len(steps) > 40
    for method, nth in steps:
        spec = world.make_guest()
        disturb(world, kind, method, nth)
        error = attempt(lambda spec=spec: world.driver.spawn(spec))
        world.pool.faults.clear()
        left = len(ours().get("VM", ())), power_of(world.driver, spec)
        assert left == ((1, Power.RUNNING) if error is None else (0, None)), (method, nth, error)
        world.driver.destroy(spec)
        assert ours() == {}, (method, nth, error)


class Operation:
    """Some work on a guest, what must be so before it and after it."""

    def __init__(self, world):
        self.driver, self.other, self.world = world.driver, world.second(), world
        self.volume, self.vif = world.make_volume(), world.make_vif()

    def prepare(self, spec):
        self.driver.spawn(spec)

    def holds(self, spec):
        return power_of(self.driver, spec) is Power.RUNNING

    def clean(self, spec):
        full = dataclasses.replace(spec, volumes=(self.volume,))
        self.other.destroy(full)
        self.driver.destroy(full)
        self.driver.confirm_resize(spec)


class Destroy(Operation):
    def work(self, spec):
        self.driver.destroy(spec)

    def holds(self, spec):
        return power_of(self.driver, spec) is None


class Reboot(Operation):
    def work(self, spec):
        self.driver.reboot(spec)


class SuspendAndResume(Operation):
    def work(self, spec):
        self.driver.suspend(spec)
        self.driver.resume(spec)


class PowerCycle(Operation):
    def work(self, spec):
        self.driver.power_off(spec, timeout_s=5)
        self.driver.power_on(spec)


class Rescue(Operation):
    def work(self, spec):
        self.driver.rescue(spec, self.world.make_guest(name=spec.name, uuid=spec.uuid))


class Unrescue(Operation):
    def prepare(self, spec):
        super().prepare(spec)
        self.driver.rescue(spec, self.world.make_guest(name=spec.name, uuid=spec.uuid))

    def work(self, spec):
        self.driver.unrescue(spec)


class Attach(Operation):
    def work(self, spec):
        self.driver.attach_volume(spec, self.volume)
        self.driver.attach_nic(spec, self.vif)


class Detach(Attach):
    def prepare(self, spec):
        super().prepare(spec)
        super().work(spec)

    def work(self, spec):
        self.driver.detach_volume(spec, self.volume)
        self.driver.detach_nic(spec, self.vif)


class Resize(Operation):
    def work(self, spec):
        info = self.driver.migrate_disk_and_power_off(spec, "other")
        self.other.finish_resize(dataclasses.replace(spec, memory_mb=512), info)

    def holds(self, spec):
        return (power_of(self.driver, spec), power_of(self.other, spec)) == (None, Power.RUNNING)


class Revert(Operation):
    def prepare(self, spec):
        super().prepare(spec)
        self.driver.migrate_disk_and_power_off(spec, "other")

    def work(self, spec):
        self.driver.revert_resize(spec)


class Confirm(Resize):
    def prepare(self, spec):
        super().prepare(spec)
        super().work(spec)

    def work(self, spec):
        self.driver.confirm_resize(spec)


class Migrate(Resize):
    def work(self, spec):
        if power_of(self.other, spec) is None:
            self.other.pre_live_migration(spec)
            self.driver.live_migration(spec, "other")
        self.driver.cleanup_live_migration(spec)


class Snapshot(Operation):
    def work(self, spec):
        self.driver.snapshot(spec, str(self.world.folder / "snapshot"))


@pytest.mark.parametrize("operation", [
    Destroy, Reboot, SuspendAndResume, PowerCycle, Rescue, Unrescue, Attach, Detach, Resize, Revert, Confirm, Migrate,
    Snapshot,
])  # fmt: skip
def test_what_was_disturbed_at_any_call_can_be_done_again(world, ours, operation):
    kinds = itertools.cycle(("fail", "lose"))
    before, one = ours(), operation(world)
    rehearsal = world.make_guest()
    one.prepare(rehearsal)
    steps = telling(steps_of(world, lambda: one.work(rehearsal)))
    one.clean(rehearsal)
    for method, nth in steps:
        disturb_and_repeat(world, one, next(kinds), method, nth)
        assert ours() == before, (method, nth)


def disturb_and_repeat(world, one, kind, method, nth):
    """Do it with a fault at one call, then again without."""
    spec = world.make_guest()
    one.prepare(spec)
    disturb(world, kind, method, nth)
    error = attempt(lambda: one.work(spec))
    world.pool.faults.clear()
    if error is not None:
        one.work(spec)
    assert one.holds(spec), (kind, method, nth, error)
    one.clean(spec)
