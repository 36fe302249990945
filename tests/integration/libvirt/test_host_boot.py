"""Guests outlive the daemon; after a crash of the whole host the daemon brings back what ran, networks first."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.functional.harness import Daemon, eventually
from tests.integration.conftest import GuestImage
from tests.integration.operators import Operator
from tests.integration.servers import LibvirtHost
from tests.integration.test_first_guest import ports_of

BRIDGE = f"brhb{os.getpid() % 100000}"


@dataclass(frozen=True)
class Site:
    """A host with two guests: `on` runs, `off` was stopped by order."""

    operator: Operator
    daemon: Daemon
    host: LibvirtHost

    def facts(self, name: str) -> Any:
        return self.operator.ask("vm", "show", name)

    def pid(self) -> str:
        return self.host.run("cat", "/run/libvirt/qemu/instance-00000001.pid").strip()

    def wait_for_boot(self, times: int) -> None:
        said = lambda: self.operator("vm", "console_log", "on").count("GUEST-READY")  # noqa: E731
        eventually(lambda: said() >= times, 150, f"boot {times} of the guest")

    def idle(self, name: str) -> bool:
        return self.facts(name)["task_state"] is None

    def crash_and_boot(self) -> None:
        """What is left of a host is its disk: no process, no bridge, no tap."""
        self.daemon.kill()
        self.host.kill()
        subprocess.run(["ip", "link", "delete", BRIDGE], check=False, capture_output=True)
        (self.daemon.directory / "boot_id.hosta").write_text("the boot before\n")
        self.host.start()
        self.daemon.start()


@pytest.fixture(scope="module")
def site(libvirt_host: LibvirtHost, guest_image: GuestImage, tmp_path_factory: Any) -> Iterator[Site]:
    options = {"libvirt_uri": libvirt_host.uri, "libvirt_type": "qemu", "start_guests_on_host_boot": True}
    options["vnc_enabled"] = False
    folder = tmp_path_factory.mktemp("boot")
    daemon = Daemon(folder, "hosta", compute_driver="libvirt", redrive_interval=0.5, **options)
    operator = Operator(daemon.write_config())
    operator("db", "sync")
    for part, disk_format in {"kernel": "aki", "ramdisk": "ari"}.items():
        where = str(getattr(guest_image, part))
        operator("image", "add", "--name", part, "--location", where, "--disk_format", disk_format)
    tail = ["--disk_format", "raw", "--kernel", "kernel", "--ramdisk", "ramdisk"]
    operator("image", "add", "--name", "tiny", "--location", str(guest_image.root), *tail)
    operator("instance_type", "create", "m1.nano", "112", "1", "0", "99")
    operator("network", "create", "private", "10.97.0.0/24", "--bridge", BRIDGE)
    with daemon:
        for name in ("on", "off"):
            operator("vm", "boot", "--name", name, "--instance_type", "m1.nano", "--image", "tiny", "--wait")
            if name == "on":
                Site(operator, daemon, libvirt_host).wait_for_boot(1)
        operator("vm", "stop", "off", "--wait")
        yield Site(operator, daemon, libvirt_host)
        for name in ("on", "off"):
            operator.run("vm", "delete", name, "--wait", "--timeout", "60")
    subprocess.run(["ip", "link", "delete", BRIDGE], check=False, capture_output=True)


def test_a_guest_that_outlived_the_daemon_is_taken_up_as_it_is(site: Site) -> None:
    before = site.pid()
    site.daemon.kill()
    site.daemon.start()
    assert site.pid() == before
    assert (site.facts("on")["vm_state"], site.facts("on")["power_state"]) == ("active", "running")
    for verb in ("pause", "unpause"):
        site.operator("vm", verb, "on", "--wait")
    assert site.pid() == before


def test_a_guest_that_ran_when_the_host_went_down_runs_again_on_its_network(site: Site) -> None:
    booted = site.operator("vm", "console_log", "on").count("GUEST-READY")
    site.crash_and_boot()
    site.wait_for_boot(booted + 1)
    eventually(lambda: site.idle("on"), 60, "the end of the start")
    assert (site.facts("on")["vm_state"], site.facts("on")["power_state"]) == ("active", "running")
    assert [port for port in ports_of(BRIDGE) if port.startswith("tap")] != []
    assert site.operator.ask("vm", "actions", "on")[-1]["state"] == "done"


def test_a_guest_that_was_stopped_before_the_host_went_down_stays_off(site: Site) -> None:
    assert (site.facts("off")["vm_state"], site.facts("off")["power_state"]) == ("stopped", "shutdown")
    assert site.host.run("virsh", "domstate", "instance-00000002").strip() == "shut off"


def test_libvirt_starts_no_guest_by_itself(site: Site) -> None:
    assert site.host.run("virsh", "list", "--all", "--autostart", "--name").strip() == ""
