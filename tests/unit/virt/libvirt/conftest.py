"""What tests of the libvirt driver run on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.targets.libvirt_test import TestDriverWorld, build


@pytest.fixture
def world() -> Iterator[TestDriverWorld]:
    """The driver on libvirt's test hypervisor."""
    with build() as built:
        yield built
