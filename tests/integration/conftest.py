"""Fixtures that start real servers, once for a test run and only when a test asks for them.

`rabbitmq`, `postgresql`, `mariadb`, `libvirt_host` are the servers; `rabbit_url`, `postgresql_url`, `mariadb_url` an
empty virtual host or database of one's own; `guest_image` the little guest. A test that uses one is marked `real`.
A test that stops or kills a server starts it again before it ends.
"""

import functools
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.processes import require_program
from tests.integration.servers import REPOSITORY, LibvirtHost, MariaDB, PostgreSQL, RabbitMQ, running

REAL_FIXTURES = {"rabbitmq", "postgresql", "mariadb", "libvirt_host", "guest_image"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a real server, so that `-m "not real"` leaves it out."""
    for item in items:
        if REAL_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.real)


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """A RabbitMQ node."""
    with running(RabbitMQ) as server:
        yield server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server."""
    with running(PostgreSQL) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A MariaDB server."""
    with running(MariaDB) as server:
        yield server


@pytest.fixture(scope="session")
def libvirt_host() -> Iterator[LibvirtHost]:
    """A libvirtd whose guests use the machine's own network."""
    with running(functools.partial(LibvirtHost, name="hosta")) as host:
        yield host


@pytest.fixture
def rabbit_url(rabbitmq: RabbitMQ) -> str:
    """The transport URL of an empty virtual host."""
    return rabbitmq.new_vhost()


@pytest.fixture
def postgresql_url(postgresql: PostgreSQL) -> str:
    """The SQLAlchemy URL of an empty database."""
    return postgresql.create_database()


@pytest.fixture
def mariadb_url(mariadb: MariaDB) -> str:
    """The SQLAlchemy URL of an empty database."""
    return mariadb.create_database()


@dataclass(frozen=True, slots=True)
class GuestImage:
    """The little guest, as etc/guest/build leaves it."""

    kernel: Path
    ramdisk: Path
    root: Path  # an ext4 file system without a boot loader: boot it with kernel and ramdisk
    disk: Path  # a qcow2 that boots by itself
    marker: str = "GUEST-READY"


@pytest.fixture(scope="session")
def guest_image() -> GuestImage:
    """Build the little guest, or take what an earlier run built from the same inputs."""
    for program in ("busybox", "mkfs.ext4", "qemu-img"):
        require_program(program)
    folder = REPOSITORY / ".state/guest"
    subprocess.run([REPOSITORY / "etc/guest/build", folder], check=True, capture_output=True, text=True, timeout=300)
    return GuestImage(folder / "kernel", folder / "ramdisk", folder / "root.raw", folder / "disk.qcow2")
