"""What a real guest reads on its config drive, and what the agent in it does: one guest, on a host of its own."""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

import pytest

from tests.builders import a_guest, a_network, a_vif, an_image
from tests.integration.conftest import GuestImage
from tests.integration.processes import require_program, wait_until
from tests.integration.servers import LibvirtHost, running
from virt.disk import Disks
from virt.errors import GuestAgentError, HypervisorError
from virt.firewall.noop import NoopFirewall
from virt.images import ImageCache
from virt.libvirt.agent import Agents
from virt.libvirt.build import Builder
from virt.libvirt.domain import Platform
from virt.libvirt.driver import LibvirtDriver
from virt.libvirt.host import Host
from virt.network.bridges import Bridges
from virt.network.networks import Networks
from virt.power_state import Power

pytestmark = pytest.mark.real

AGENT_S = 3.0
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 somebody@example.org"
USER_DATA = b"#!/bin/sh\ncat /etc/greeting /root/.ssh/authorized_keys\n"


class Subject:
    """The guest, its host and its driver."""

    def __init__(self, host: LibvirtHost, image: GuestImage) -> None:
        self.host, self.instances = host, host.folder / "state/instances"
        connection = Host(host.uri)
        images = ImageCache(self.instances / "_base", image.kernel.parent)
        self.driver = LibvirtDriver(
            connection,
            Platform(type="qemu", arch="", cluster="drive"),
            Builder(self.instances, images, Disks()),
            networks=Networks(Bridges(netns=f"/proc/{host.pid}/ns/net"), host.folder / "networks"),
            firewall=NoopFirewall(),
            agents=Agents(connection, "drive", timeout_s=AGENT_S),
        )
        self.driver.init_host("drive")
        self.network = a_network(bridge="br-drive", cidr="10.77.0.0/24", gateway=IPv4Address("10.77.0.1"))
        self.spec = a_guest(
            hostname="alpha",
            image=an_image(name="root", location=str(image.root)),
            kernel=an_image(name="kernel", location=str(image.kernel), disk_format="aki"),
            ramdisk=an_image(name="ramdisk", location=str(image.ramdisk), disk_format="ari"),
            memory_mb=128,
            vifs=(a_vif(network=self.network, addresses=(IPv4Interface("10.77.0.5/24"),)),),
            key_name="laptop",
            key_data=KEY,
            user_data=base64.b64encode(USER_DATA).decode(),
            injected_files=(("/etc/greeting", b"well met\n"),),
            metadata={"role": "test"},
        )

    def console(self) -> str:
        return (self.instances / self.spec.name / "console.log").read_text(errors="replace")

    def wait_for(self, marker: str, times: int = 1, usual_s: float = 10) -> None:
        wait_until(lambda: self.console().count(marker) >= times, usual_s, f"{marker}: {self.console()[-500:]}")

    def moved(self, address: str, **changes: Any) -> Any:
        """The spec with another address."""
        vif = dataclasses.replace(self.spec.vifs[0], addresses=(IPv4Interface(f"{address}/24"),))
        return dataclasses.replace(self.spec, vifs=(vif,), **changes)

    def answers_at(self, address: str) -> bool:
        try:
            self.host.run("busybox", "ping", "-c", "1", "-W", "1", address)
        except RuntimeError:
            return False
        return True

    def ask_agent(self, command: str, **arguments: Any) -> Any:
        text = json.dumps({"execute": command, "arguments": arguments})
        return json.loads(self.host.run("virsh", "qemu-agent-command", self.spec.name, text))["return"]

    def read(self, path: str) -> bytes:
        handle = self.ask_agent("guest-file-open", path=path)
        got = self.ask_agent("guest-file-read", handle=handle, count=1024**2)
        self.ask_agent("guest-file-close", handle=handle)
        return base64.b64decode(got["buf-b64"])

    def agent_pid(self) -> str:
        return re.findall(r"AGENT pid=(\d+)", self.console())[-1]

    def typed(self, *lines: tuple[str, str]) -> None:
        """Type lines on the console, each when the one before was answered by what is expected."""
        access = self.driver.get_ajax_console(self.spec)
        with socket.create_connection((access.host, access.port), timeout=20) as terminal:
            terminal.sendall(access.token.encode() + b"\n")
            for line, answer in lines:
                terminal.sendall(line.encode() + b"\n")
                heard = b""
                while answer.encode() not in heard:
                    chunk = terminal.recv(4096)
                    assert chunk, heard
                    heard += chunk


@pytest.fixture(scope="module")
def guest(guest_image: GuestImage) -> Iterator[Subject]:
    require_program("qemu-ga")
    with running(functools.partial(LibvirtHost, name="drive", network=True)) as host:
        subject = Subject(host, guest_image)
        subject.driver.spawn(subject.spec)
        host.run("ip", "addr", "add", "10.77.0.1/24", "dev", "br-drive")
        subject.wait_for("GUEST-READY")
        yield subject
        subject.driver.destroy(subject.spec)
        assert not (subject.instances / subject.spec.name).exists()
        subject.driver.close()


def test_a_guest_reads_all_that_it_is_told(guest):
    said = guest.console().replace("\r", "")
    assert f"CONFIG-DRIVE uuid={guest.spec.uuid} hostname=alpha files=1\n" in said
    assert "PUBLIC-KEYS 1\n" in said
    assert f"USER-DATA well met\nUSER-DATA {KEY}\n" in said
    assert "GUEST-READY hostname=alpha " in said


def test_a_guest_has_its_static_address_without_a_dhcp_server(guest):
    assert "ADDRESS eth0 10.77.0.5/24" in guest.console()
    assert guest.answers_at("10.77.0.5")


def test_only_the_hypervisor_can_read_the_drive_on_the_host(guest):
    drive = guest.instances / guest.spec.name / "disk.config"
    assert drive.stat().st_mode & 0o777 == 0o600
    assert "config-2" in guest.host.run("blkid", "-p", str(drive))


def test_the_agent_writes_a_file_of_many_pieces(guest):
    contents = bytes(range(256)) * 700
    guest.driver.inject_file(guest.spec, "/var/pieces", contents)
    assert guest.read("/var/pieces") == contents
    guest.driver.inject_file(guest.spec, "/var/pieces", b"")
    assert guest.read("/var/pieces") == b""


def test_a_place_that_the_guest_has_not_is_refused_in_its_words(guest):
    with pytest.raises(HypervisorError, match="No such file"):
        guest.driver.inject_file(guest.spec, "/nowhere/at/all", b"x")


def test_the_password_that_was_set_logs_in_and_another_does_not(guest):
    guest.driver.set_admin_password(guest.spec, "s3cret: $x/&\\'")
    guest.wait_for("PASSWORD root changed")
    guest.typed(("login root", "assword:"), ("guess", "incorrect"), ("", "login:"), ("root", "assword:"),
                ("s3cret: $x/&\\'", "#"), ("echo $((6*7))-inside", "42-inside"), ("exit", "exit"))  # fmt: skip


def test_new_network_facts_are_used_when_the_network_is_reset(guest):
    moved = guest.moved("10.77.0.6")
    guest.driver.inject_network_info(moved)
    assert guest.answers_at("10.77.0.5")
    guest.driver.reset_network(moved)
    guest.wait_for("ADDRESS eth0 10.77.0.6/24")
    assert guest.answers_at("10.77.0.6")
    guest.driver.reset_network(guest.spec)
    assert guest.answers_at("10.77.0.5")


@pytest.fixture
def _hung_agent(guest):
    pid = guest.agent_pid()
    guest.typed((f"kill -STOP {pid} && echo $((6*8))-done", "48-done"))
    yield
    guest.typed((f"kill -CONT {pid} && echo $((6*9))-done", "54-done"))
    wait_until(lambda: guest.read("/etc/greeting") == b"well met\n", 3, "the agent")


@pytest.mark.usefixtures("_hung_agent")
@pytest.mark.parametrize("verb", ["set_admin_password", "inject_file", "reset_network"])
def test_an_agent_that_hangs_is_given_up_at_the_deadline_and_holds_up_nothing(guest, verb):
    arguments = {"set_admin_password": ["x"], "inject_file": ["/x", b"x"], "reset_network": []}[verb]
    started = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(getattr(guest.driver, verb), guest.spec, *arguments)
        time.sleep(0.5)
        guest.driver.pause(guest.spec)
        guest.driver.unpause(guest.spec)
        assert guest.driver.get_info(guest.spec.name).power is Power.RUNNING
        assert time.monotonic() - started < 2
        with pytest.raises(GuestAgentError, match="no guest agent answers"):
            asked.result()
    assert AGENT_S - 1 < time.monotonic() - started < AGENT_S + 2


def test_a_guest_is_told_anew_when_it_restarts_and_obeys_without_an_agent(guest):
    moved = guest.moved("10.77.0.7", hostname="beta")
    guest.typed((f"kill -STOP {guest.agent_pid()} && echo $((6*5))-done", "30-done"))
    started = time.monotonic()
    guest.driver.power_off(moved, timeout_s=40)
    assert time.monotonic() - started < 25
    assert guest.console().count("GUEST-POWEROFF") == 1
    guest.driver.power_on(moved)
    guest.wait_for("GUEST-READY hostname=beta")
    assert guest.answers_at("10.77.0.7")


def test_a_guest_without_an_agent_says_so_at_once(guest):
    guest.typed((f"kill -9 {guest.agent_pid()} && echo $((6*6))-done", "36-done"))
    wait_until(lambda: "state='disconnected'" in guest.host.run("virsh", "dumpxml", guest.spec.name), 2, "its end")
    started = time.monotonic()
    with pytest.raises(GuestAgentError, match="no guest agent answers"):
        guest.driver.inject_file(guest.spec, "/etc/motd", b"x")
    guest.driver.inject_network_info(guest.spec)
    assert time.monotonic() - started < AGENT_S


def test_a_guest_of_the_other_machine_finds_its_drive_too(guest, guest_image):
    guest.driver.power_off(guest.spec)
    other = Subject(guest.host, guest_image)
    image = dataclasses.replace(other.spec.image, properties={"hw_machine_type": "q35"})
    other.spec = dataclasses.replace(other.spec, image=image)
    try:
        other.driver.spawn(other.spec)
        other.wait_for(f"CONFIG-DRIVE uuid={other.spec.uuid}")
    finally:
        other.driver.destroy(other.spec)
        other.driver.close()
