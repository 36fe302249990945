"""The driver for containers on real ones: what only it has to deal with."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from tests.builders import a_guest, a_volume, an_image
from tests.integration.containers import MARKER, container_image
from tests.integration.processes import require_program, wait_until
from tests.integration.servers import LibvirtHost
from virt.connection import get_connection
from virt.errors import DriverConfigError, ImageError, UnsupportedError, VirtError
from virt.libvirt.conf import OPTS as LIBVIRT_OPTS
from virt.libvirt.lxc import LxcDriver
from virt.power_state import Power
from virt.spec import InstanceSpec


@pytest.fixture
def conf(libvirt_host: LibvirtHost, tmp_path: Path) -> cfg.ConfigOpts:
    """The configuration that an operator would write for containers on this host."""
    require_program("libvirt_lxc")
    made = cfg.ConfigOpts()
    made([], project="test")
    state = libvirt_host.folder / f"lxc-{tmp_path.name}"
    made.register_opts([cfg.StrOpt("state_path", default=str(state)), cfg.StrOpt("compute_driver", default="libvirt")])
    made.register_opts(LIBVIRT_OPTS)
    made.set_override("libvirt_type", "lxc")
    made.set_override("libvirt_uri", libvirt_host.lxc_uri)
    get_connection(made)
    made.set_override("images_path", str(tmp_path))
    return made


@pytest.fixture
def driver(conf: cfg.ConfigOpts) -> Iterator[LxcDriver]:
    """A connected driver for containers."""
    made = get_connection(conf)
    assert isinstance(made, LxcDriver)
    made.init_host("hosta")
    yield made
    made.close()


@pytest.fixture
def box(driver: LxcDriver, tmp_path: Path) -> Iterator[Any]:
    """A maker of containers, all removed at the end."""
    specs: list[InstanceSpec] = []

    def make(*, extra: dict[str, bytes] | None = None, **changes: Any) -> InstanceSpec:
        image = an_image(name="box", location=str(container_image(tmp_path, extra=extra)), disk_format="tar")
        specs.append(a_guest(**({"image": image, "vifs": (), "memory_mb": 64} | changes)))
        return specs[-1]

    yield make
    for spec in specs:
        driver.destroy(spec)


def waiting(driver: LxcDriver, spec: InstanceSpec, marker: str) -> None:
    wait_until(lambda: marker in driver.get_console_output(spec), 5, f"{marker} of {spec.name}")


def test_a_container_that_prints_without_end_neither_stands_still_nor_fills_the_host(driver, box, conf):
    spec = box(extra={"flood": b""})
    driver.spawn(spec)
    waiting(driver, spec, MARKER)
    logs = list((Path(conf.instances_path) / spec.name).glob("console.log*"))
    assert sorted(path.name for path in logs if path.suffix != ".lock") == ["console.log", "console.log.0"]
    assert sum(path.stat().st_size for path in logs) < 2.5 * 1024**2


def test_a_container_without_interfaces_sees_none_of_the_hosts(driver, box):
    spec = box()
    driver.spawn(spec)
    waiting(driver, spec, MARKER)
    nics = [line.split()[1] for line in driver.get_console_output(spec).splitlines() if line.startswith("NIC")]
    assert nics == ["lo"]


def test_a_shell_of_a_container_is_reached_by_its_token(driver, box):
    spec = box()
    driver.spawn(spec)
    waiting(driver, spec, MARKER)
    door = driver.get_ajax_console(spec)
    with socket.create_connection((door.host, door.port), timeout=10) as connection:
        connection.sendall(door.token.encode() + b"\necho $((6*7))-by-hand\n")
        heard = b""
        while b"42-by-hand" not in heard:
            heard += connection.recv(4096)


def test_what_only_machines_have_is_refused_before_anything_is_made(driver, box, conf):
    for changes, reason in (
        ({"image": an_image(name="m", disk_format="qcow2")}, "image m is qcow2: a container's is a tar archive"),
        ({"kernel": an_image(disk_format="aki")}, "has a kernel or ramdisk"),
        ({"volumes": (a_volume(),)}, "a container has no volumes"),
        ({"swap_mb": 64}, "no swap disk"),
        ({"image": None}, "nothing to boot from"),
    ):
        spec = box(**changes)
        with pytest.raises((ImageError, UnsupportedError, VirtError), match=reason):
            driver.spawn(spec)
        assert not (Path(conf.instances_path) / spec.name).exists()


def test_an_archive_that_is_too_large_for_the_flavor_leaves_nothing(driver, box, conf, tmp_path):
    spec = box(extra={"big": bytes(1024**2)})
    driver.limit(max_gb=0, max_files=10)
    with pytest.raises(ImageError, match="more than 10 files"):
        driver.spawn(spec)
    assert not (Path(conf.instances_path) / spec.name).exists()
    assert driver.list_guests() == []


def test_a_container_whose_init_cannot_run_leaves_nothing(driver, box, conf):
    spec = box(extra={"sbin/init": b"no program"})
    with pytest.raises(VirtError, match=spec.name):
        driver.spawn(spec)
    assert driver.list_guests() == []
    assert not (Path(conf.instances_path) / spec.name).exists()


def test_two_containers_share_no_user_of_the_host(driver, box, conf):
    specs = [box(), box()]
    for spec in specs:
        driver.spawn(spec)
    owners = {(Path(conf.instances_path) / spec.name / "rootfs").stat().st_uid for spec in specs}
    assert len(owners) == 2
    assert {fact.power for fact in driver.list_guests()} == {Power.RUNNING}


def test_a_place_that_containers_cannot_enter_is_named(conf, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    conf.set_override("instances_path", str(closed / "instances"))
    with pytest.raises(DriverConfigError, match="closed to others"):
        get_connection(conf).init_host("hosta")


def test_machines_are_not_looked_for_among_containers(conf, libvirt_host):
    conf.set_override("libvirt_type", "qemu")
    with pytest.raises(DriverConfigError, match="libvirt_type = qemu: libvirt_uri leads to LXC"):
        get_connection(conf).init_host("hosta")
