"""Containers from the command line: they boot, answer, know what they were told, outlive the daemon, leave nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.functional.harness import Daemon, eventually
from tests.integration.containers import MARKER, container_image
from tests.integration.operators import Operator
from tests.integration.processes import require_program, wait_until
from tests.integration.servers import LibvirtHost

BRIDGE = f"brlxc{os.getpid() % 100000}"
NEIGHBOUR = f"lxc{os.getpid() % 100000}"


@dataclass(frozen=True)
class Place:
    """A host of containers, its daemon, and an operator at a shell."""

    operator: Operator
    daemon: Daemon
    host: LibvirtHost
    instances: Path

    def console(self, name: str) -> str:
        return self.operator("vm", "console_log", name)

    def wait_for(self, name: str, marker: str, times: int = 1) -> None:
        wait_until(lambda: self.console(name).count(marker) >= times, 5, f"{marker} of {name}")

    def keepers(self) -> list[str]:
        """The programs that keep consoles of this place."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = entry.read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            found += [word for word in words if word.startswith(str(self.instances)) and word.endswith("console.lock")]
        return found

    def answers(self, address: str) -> bool:
        """True when a neighbour on the same bridge gets an answer."""
        ping = ["ip", "netns", "exec", NEIGHBOUR, "busybox", "ping", "-c1", "-W1", address]
        return subprocess.run(ping, check=False, capture_output=True).returncode == 0


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def place(libvirt_host: LibvirtHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A daemon for containers; its instances are where others may pass, as containers' root must."""
    require_program("libvirt_lxc")
    folder, instances = tmp_path_factory.mktemp("lxc"), libvirt_host.folder / "lxc/instances"
    instances.parent.mkdir()
    options = {"libvirt_uri": libvirt_host.lxc_uri, "libvirt_type": "lxc", "instances_path": instances}
    options["firewall_driver"] = "nwfilter"
    daemon = Daemon(folder, "hostc", compute_driver="libvirt", images_path=folder / "images", **options)
    operator = Operator(daemon.write_config())
    operator("db", "sync")
    operator("image", "add", "--name", "box", "--location", str(container_image(folder)), "--disk_format", "tar")
    operator("instance_type", "create", "m1.nano", "64", "1", "1", "99")
    operator("network", "create", "private", "10.98.0.0/24", "--bridge", BRIDGE)
    ip("link", "add", BRIDGE, "type", "bridge")
    ip("netns", "add", NEIGHBOUR)
    ip("link", "add", f"{NEIGHBOUR}h", "master", BRIDGE, "up", "type", "veth", "peer", "eth0", "netns", NEIGHBOUR)
    ip("-n", NEIGHBOUR, "addr", "add", "10.98.0.250/24", "dev", "eth0")
    ip("-n", NEIGHBOUR, "link", "set", "eth0", "up")
    with daemon:
        yield Place(operator, daemon, libvirt_host, instances)
    subprocess.run(["ip", "netns", "delete", NEIGHBOUR], check=False, capture_output=True)
    subprocess.run(["ip", "link", "delete", BRIDGE], check=False, capture_output=True)


@pytest.fixture(scope="module")
def one(place: Place) -> str:
    """A container for the tests of this module."""
    words = ("--name", "one", "--instance_type", "m1.nano", "--image", "box", "--meta", "colour=green", "--wait")
    place.operator("vm", "boot", *words)
    place.wait_for("one", MARKER)
    return "one"


def address_of(place: Place, name: str) -> str:
    return str(place.operator.ask("vm", "show", name)["addresses"][0]["address"])


def test_a_container_is_listed_and_runs_its_init(place: Place, one: str) -> None:
    (vm,) = place.operator.ask("vm", "list")
    assert (vm["display_name"], vm["vm_state"], vm["power_state"]) == (one, "active", "running")
    assert f"inet {address_of(place, one)}/24" in place.console(one)


def test_a_container_answers_its_neighbours_once_its_group_lets_them_in(place: Place, one: str) -> None:
    address = address_of(place, one)
    assert not place.answers(address)
    place.operator("secgroup", "add-rule", "default", "icmp", "--cidr", "10.98.0.0/24")
    wait_until(lambda: place.answers(address), 2, "an answer")


def test_a_container_is_told_what_a_config_drive_would_tell(place: Place, one: str) -> None:
    assert '"colour": "green"' in place.console(one)


def test_root_of_a_container_is_nobody_on_the_host(place: Place, one: str) -> None:
    told = next(line for line in place.console(one).splitlines() if line.startswith("ROOT"))
    inside, outside, count = told.split("maps to")[1].split()
    assert told.startswith("ROOT 0 ")
    assert (inside, count) == ("0", "65536")
    assert int(outside) >= 65536


@pytest.mark.parametrize(
    ("words", "capability"),
    [
        (("vm", "suspend", "one", "--wait"), "Suspendable"),
        (("vm", "snapshot", "one", "copy", "--wait"), "Snapshots"),
        (("vm", "rescue", "one", "--wait"), "Rescuable"),
        (("vm", "reset_network", "one", "--wait"), "InjectsGuest"),
        (("vm", "vnc_console", "one"), "a container has no screen"),
    ],
)
def test_what_a_container_cannot_do_is_refused_in_words(
    place: Place, one: str, words: tuple[str, ...], capability: str
) -> None:
    done = place.operator.run(*words)
    assert done.returncode != 0
    assert capability in done.stderr
    vm = place.operator.ask("vm", "show", one)
    assert (vm["vm_state"], vm["task_state"], vm["power_state"]) == ("active", None, "running")


def test_a_container_is_paused_rebooted_stopped_and_started(place: Place, one: str) -> None:
    for verb in ("pause", "unpause", "stop", "start"):
        place.operator("vm", verb, one, "--wait")
    place.wait_for(one, MARKER, 2)
    assert (place.instances / "instance-00000001/rootfs/obeyed").exists()
    place.operator("vm", "reboot", one, "--wait")
    place.wait_for(one, MARKER, 3)
    assert place.operator.ask("vm", "show", one)["power_state"] == "running"


def test_a_container_and_its_log_outlive_the_daemon(place: Place, one: str) -> None:
    before = place.console(one).count(MARKER)
    place.daemon.kill()
    assert place.host.run("virsh", "-c", "lxc:///system", "list", "--name").split() == ["instance-00000001"]
    assert len(place.keepers()) == 1
    place.daemon.start()
    place.operator("vm", "reboot", one, "--wait")
    place.wait_for(one, MARKER, before + 1)
    assert len(place.keepers()) == 1


def test_a_container_that_is_deleted_leaves_nothing(place: Place, one: str) -> None:
    place.operator("vm", "delete", one, "--wait")
    assert place.operator.ask("vm", "list") == []
    assert place.host.run("virsh", "-c", "lxc:///system", "list", "--all", "--name").strip() == ""
    assert [entry.name for entry in place.instances.iterdir()] == ["_base"]
    eventually(lambda: place.keepers() == [], 5, "the end of the keeper")
    assert [port.name for port in Path(f"/sys/class/net/{BRIDGE}/brif").iterdir()] == [f"{NEIGHBOUR}h"]
    assert place.operator.ask("network", "list")[0]["held"] == 0
