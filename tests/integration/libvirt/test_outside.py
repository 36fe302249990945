"""A daemon on a real libvirtd, and what others do to its guests and to libvirtd behind its back.

Its guests have an empty disk, so they run their firmware for ever: nobody waits for them to boot.
"""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.harness import ADMIN, eventually
from tests.integration.processes import free_port
from tests.integration.servers import LibvirtHost, scratch_folder
from tests.integration.sites import Site

METRICS = free_port()


@pytest.fixture(scope="module")
def site(libvirt_host: LibvirtHost) -> Iterator[Site]:
    """A daemon that syncs by the clock once an hour only."""
    with scratch_folder() as folder:
        options = {
            "compute_driver": "libvirt",
            "libvirt_uri": libvirt_host.uri,
            "libvirt_type": "qemu",
            "images_path": folder,
            "stub_network": True,
            "libvirt_call_timeout": 3,
            "metrics_listen": f"127.0.0.1:{METRICS}",
        }
        with Site(folder, f"sqlite:///{folder}/bus.sqlite", f"sqlite:///{folder}/nova.sqlite", **options) as site:
            yield site.start("hosta")


@pytest.fixture
def vm(site: Site) -> Iterator[int]:
    """An active instance."""
    instance_id = site.boot()
    yield instance_id
    site.done(site.api.delete(ADMIN, instance_id), 60)


def name_of(instance_id: int) -> str:
    return f"instance-{instance_id:08x}"


def state(site: Site, instance_id: int) -> str:
    return site.instance(instance_id).vm_state


def qemu_pid(host: LibvirtHost, instance_id: int) -> str:
    return host.run("cat", f"/run/libvirt/qemu/{name_of(instance_id)}.pid").strip()


def metrics() -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{METRICS}/metrics", timeout=15) as answer:
        return str(answer.read().decode())


@pytest.mark.parametrize(
    ("verb", "becomes", "back"), [("destroy", "stopped", "start"), ("suspend", "paused", "resume")]
)
def test_what_is_done_to_a_guest_by_hand_is_recorded_at_once(
    site: Site, vm: int, libvirt_host: LibvirtHost, verb: str, becomes: str, back: str
) -> None:
    libvirt_host.run("virsh", verb, name_of(vm))
    eventually(lambda: state(site, vm) == becomes, 6)
    libvirt_host.run("virsh", back, name_of(vm))
    eventually(lambda: state(site, vm) == "active", 6)


def test_a_guest_that_dies_is_recorded_at_once(site: Site, vm: int, libvirt_host: LibvirtHost) -> None:
    libvirt_host.run("kill", "-KILL", qemu_pid(libvirt_host, vm))
    eventually(lambda: state(site, vm) == "stopped", 6)


def test_a_killed_libvirtd_costs_no_guest_and_no_event_for_long(site: Site, vm: int, libvirt_host: LibvirtHost) -> None:
    pid = qemu_pid(libvirt_host, vm)
    libvirt_host.run("sh", "-c", "kill -KILL $(cat /run/libvirt/libvirtd.pid)")
    libvirt_host.restart_libvirtd()
    eventually(lambda: "micronova_hypervisor_up 1.0" in metrics(), 10)
    site.done(site.api.pause(ADMIN, vm), 30)
    assert qemu_pid(libvirt_host, vm) == pid
    libvirt_host.run("virsh", "resume", name_of(vm))
    eventually(lambda: state(site, vm) == "active", 10)


def test_what_happened_while_libvirtd_was_away_is_recorded_when_it_is_back(
    site: Site, vm: int, libvirt_host: LibvirtHost
) -> None:
    pid = qemu_pid(libvirt_host, vm)
    libvirt_host.stop_libvirtd()
    libvirt_host.run("kill", "-KILL", pid)
    assert state(site, vm) == "active"  # nobody knows better
    libvirt_host.start_libvirtd()
    eventually(lambda: state(site, vm) == "stopped", 15)


def test_a_guest_that_hangs_delays_neither_operations_nor_metrics_nor_lists(
    site: Site, vm: int, libvirt_host: LibvirtHost
) -> None:
    other = site.boot()
    libvirt_host.run("kill", "-STOP", qemu_pid(libvirt_host, vm))
    hanging = site.api.pause(ADMIN, vm)
    begun = time.monotonic()
    for verb in ("pause", "unpause") * 5:
        site.done(getattr(site.api, verb)(ADMIN, other), 30)
    assert time.monotonic() - begun < 10
    eventually(lambda: f'instance="{name_of(other)}"' in metrics(), 30)
    with pytest.raises(Exception, match="no answer"):
        site.done(hanging, 30)
    libvirt_host.run("kill", "-CONT", qemu_pid(libvirt_host, vm))
    site.done(site.api.delete(ADMIN, other), 30)


def test_files_of_a_deleted_guest_are_found_and_removed_on_request(site: Site) -> None:
    instance_id = site.boot()
    site.done(site.api.delete(ADMIN, instance_id))
    left = Path(site.directory) / "instances" / name_of(instance_id)
    left.mkdir()
    (left / "disk").write_bytes(b"left")
    for repair in (False, True):
        (found,) = site.api.audit_host(ADMIN, "hosta", repair=repair)
        assert (found["name"], found["kind"]) == (name_of(instance_id), "files")
    assert not left.exists()
