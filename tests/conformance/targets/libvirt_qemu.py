"""The libvirt driver on real QEMU guests, emulated."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.conformance.harness import Target, World
from tests.conformance.targets.libvirt_test import NO_FILTERS
from tests.integration.processes import require_program
from tests.integration.servers import REPOSITORY, LibvirtHost, running


@contextmanager
def build() -> Iterator[World]:
    """A host in namespaces of its own; the little guest is built when it is not there."""
    from tests.conformance.qemu_world import GUEST, QemuWorld

    for program in ("busybox", "mkfs.ext4", "qemu-ga", "qemu-img"):
        require_program(program)
    subprocess.run([REPOSITORY / "etc/guest/build", GUEST], check=True, capture_output=True, timeout=300)
    with (
        running(functools.partial(LibvirtHost, name="conformance", network=True, unprivileged=True)) as server,
        ExitStack() as stack,
    ):
        world = QemuWorld(server, stack)
        yield world
        world.driver.close()


TARGETS = [
    Target(
        name="libvirt-qemu",
        build=build,
        unable=NO_FILTERS,
        missing_helpers=frozenset({"share_storage"}),
        shared=True,
        marks=(pytest.mark.real,),
    ),
]
