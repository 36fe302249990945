"""The whole way, from the command line to packets and back to nothing: one guest, and what its operator does with it.

The host has a network namespace of its own; its daemon runs there and serves a network by DHCP and nat. Its QEMU is
nobody special, as on every Debian host. The tests are steps of one story, in order.
"""

from __future__ import annotations

import contextlib
import functools
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compute.specs import to_global_ipv6
from tests.functional.harness import Daemon, eventually
from tests.integration.conftest import GuestImage
from tests.integration.network.places import Place, end_all_in, inhabitants, places, wire
from tests.integration.operators import Operator
from tests.integration.servers import LibvirtHost, running, scratch_folder

pytestmark = pytest.mark.real

CIDR, CIDR_V6, OUTSIDE = "10.98.0.0/24", "fd00:98::/64", "192.0.2.2"
BOOT_S = 150
USER_DATA = """#!/bin/sh
cat > /www/cgi-bin/run <<'END'
#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
exec sh 2>&1
END
chmod 755 /www/cgi-bin/run
"""
WHO_IS_IT = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\necho $REMOTE_ADDR\n"


class Lab:
    """A host with its daemon and operator, and somebody outside who knows the way to its guests."""

    def __init__(self, host: LibvirtHost, outside: Place, folder: Path) -> None:
        self.host, self.outside, self.folder = host, outside, folder
        self.daemon = Daemon(
            folder, "hosta", inside=["nsenter", f"--net={self.netns}", "--"], compute_driver="libvirt",
            libvirt_uri=host.uri, libvirt_type="qemu", network_manager="flatdhcp", use_ipv6="true",
            networks_path=folder / "networks",
        )  # fmt: skip
        self.operate = Operator(self.daemon.write_config())

    def one(self, name: str = "one") -> Any:
        """The guest's record."""
        return self.operate.ask("vm", "show", name)

    def address(self, name: str = "one") -> str:
        """Its address."""
        return str(self.one(name)["addresses"][0]["address"])

    def address_v6(self) -> str:
        """The one that it makes of its MAC address."""
        return str(to_global_ipv6(CIDR_V6, self.one()["addresses"][0]["mac"]).ip)

    def console(self, name: str = "one") -> str:
        """Everything that it printed."""
        return self.operate("vm", "console_log", name)

    def lines(self) -> list[str]:
        """The same line by line; of the marker only its first word."""
        found = self.console().replace("\r", "").splitlines()
        return [line.split(" ")[0] if line.startswith("GUEST-READY") else line for line in found]

    def fetch(self, path: str, address: str) -> str:
        """A page of the guest's, for somebody outside."""
        return self.outside.get(f"http://{address}{path}")

    def do(self, script: str, name: str = "one") -> str:
        """Have the guest run a script, over HTTP from outside."""
        return self.outside.get(f"http://{self.address(name)}/cgi-bin/run", script)

    def status(self, name: str = "one") -> dict[str, str]:
        """Its status page: hostname, boots, uptime, and ticks, which it counts in memory."""
        return dict(word.split("=") for word in self.fetch("/cgi-bin/status", self.address(name)).split())

    def wait_ready(self, name: str = "one") -> None:
        """Wait until it answers outside."""
        eventually(lambda: self._answers(name), BOOT_S, f"{name} answers")

    @property
    def netns(self) -> str:
        """The host's network namespace."""
        return f"/proc/{self.host.pid}/ns/net"

    def _answers(self, name: str) -> bool:
        with contextlib.suppress(AssertionError):
            return "ticks" in self.status(name)
        return False


@pytest.fixture(scope="module")
def lab(guest_image: GuestImage) -> Iterator[Lab]:
    host_kind = functools.partial(LibvirtHost, name="packets", network=True, unprivileged=True)
    with scratch_folder() as folder, places(1) as (outside,), running(host_kind) as host:
        _connect(host, outside)
        lab = Lab(host, outside, folder)
        _furnish(lab, guest_image)
        try:
            with lab.daemon:
                yield lab
        finally:
            end_all_in(lab.netns)  # what a test that failed has left


def _connect(host: LibvirtHost, outside: Place) -> None:
    """Outside is 192.0.2.2 and 2001:db8::2, the host .1 of both, and the way to the guests."""
    wire(host, "out", outside, "eth0")
    for address in ("192.0.2.1/24", "2001:db8::1/64"):
        host.run("ip", "addr", "add", address, "dev", "out", *(["nodad"] if ":" in address else []))
    outside.run("ip", "addr", "add", "192.0.2.2/24", "dev", "eth0")
    outside.run("ip", "addr", "add", "2001:db8::2/64", "dev", "eth0", "nodad")
    outside.run("ip", "route", "add", CIDR, "via", "192.0.2.1")
    outside.run("ip", "route", "add", CIDR_V6, "via", "2001:db8::1")


def _furnish(lab: Lab, image: GuestImage) -> None:
    """Images, a flavor and a network."""
    lab.operate("db", "sync")
    for part, disk_format in {"kernel": "aki", "ramdisk": "ari"}.items():
        path = str(getattr(image, part))
        lab.operate("image", "add", "--name", part, "--location", path, "--disk_format", disk_format)
    tail = ["--disk_format", "raw", "--kernel", "kernel", "--ramdisk", "ramdisk"]
    lab.operate("image", "add", "--name", "tiny", "--location", str(image.root), *tail)
    lab.operate("instance_type", "create", "m1.nano", "112", "1", "0", "99")
    lab.operate("instance_type", "create", "m1.wide", "112", "1", "2", "98", "--ephemeral_gb", "1")
    lab.operate("network", "create", "private", CIDR, "--bridge", "br98", "--cidr_v6", CIDR_V6)


def test_a_guest_boots_with_a_config_drive_and_an_address_by_dhcp(lab: Lab) -> None:
    (lab.folder / "user-data").write_text(USER_DATA)
    words = ["--instance_type", "m1.nano", "--image", "tiny", "--user-data", str(lab.folder / "user-data")]
    lab.operate("vm", "boot", "--name", "one", *words, "--wait")
    told = f"ADDRESS eth0 {lab.address()}/24"
    eventually(lambda: {"GUEST-READY", told} <= set(lab.lines()), BOOT_S, "its marker and its address")
    assert f"CONFIG-DRIVE uuid={lab.one()['uuid']}" in lab.console()
    assert lab.one()["addresses"][0]["mac"] in (lab.folder / "networks/1/leases").read_text()


def test_its_qemu_is_nobody_special_and_nobody_else_reads_its_disk(lab: Lab) -> None:
    owner = lab.host.run("sh", "-c", "stat -c %U /proc/$(cat /run/libvirt/qemu/instance-*.pid)")
    assert owner.strip() == "libvirt-qemu"
    (disk,) = (lab.folder / "instances").glob("*/disk")
    assert (disk.owner(), disk.stat().st_mode & 0o777) == ("libvirt-qemu", 0o600)


def test_it_answers_ping_and_http_from_outside_on_both_protocols(lab: Lab) -> None:
    lab.wait_ready()
    for address, host in ((lab.address(), lab.address()), (lab.address_v6(), f"[{lab.address_v6()}]")):
        eventually(lambda address=address: lab.outside.pings(address), 60, f"{address} answers")
        assert lab.fetch("/", host) == "hello from one\n"


def test_it_goes_out_under_the_hosts_address(lab: Lab) -> None:
    page = lab.folder / "www/cgi-bin/who"
    page.parent.mkdir(parents=True)
    page.write_text(WHO_IS_IT)
    page.chmod(0o755)
    command = lab.outside.command("busybox", "httpd", "-f", "-p", f"{OUTSIDE}:80", "-h", str(lab.folder / "www"))
    with subprocess.Popen(command) as server:
        ask = f"printf 'GET /cgi-bin/who HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {OUTSIDE} 80 2>/dev/null | tail -n 1"
        said = eventually(lambda: lab.do(ask).strip(), 20, "the answer from outside")
        server.kill()
    assert said == "192.0.2.1"


def test_it_writes_to_a_volume_that_is_attached(lab: Lab) -> None:
    volume = lab.operate.ask("volume", "create", "1", "--name", "data")["id"]
    lab.operate("volume", "attach", str(volume), "one", "/dev/vdb", "--wait")
    serial = f"vol-{volume:08x}"
    device = eventually(lambda: lab.do(f"grep -l '^{serial}$' /sys/block/vd*/serial | cut -d/ -f4").strip(), 30)
    lab.do(f"echo kept-on-the-volume | dd of=/dev/{device} bs=512 count=1 conv=sync,fsync")
    lab.operate("volume", "detach", str(volume), "--wait")
    files = [path for path in (lab.folder / "volumes").rglob("*") if path.is_file()]
    assert [path.read_bytes()[:18] for path in files] == [b"kept-on-the-volume"]
    lab.operate("volume", "attach", str(volume), "one", "/dev/vdb", "--wait")


def test_the_daemon_restarts_and_dhcp_goes_on(lab: Lab) -> None:
    server = (lab.folder / "networks/1/dnsmasq.pid").read_text()
    lab.daemon.end()
    assert lab.outside.pings(lab.address())
    lab.daemon.start()
    assert (lab.folder / "networks/1/dnsmasq.pid").read_text() == server
    assert "obtained" in lab.do("udhcpc -i eth0 -f -q -n -t 5 -T 1 -s /etc/dhcp 2>&1")


def test_a_libvirtd_that_is_killed_costs_the_guest_nothing_and_the_daemon_finds_the_next(lab: Lab) -> None:
    before = lab.status()
    lab.host.run("sh", "-c", "kill -9 $(cat /run/libvirt/libvirtd.pid)")
    assert lab.outside.pings(lab.address())
    lab.host.restart_libvirtd()
    started = time.monotonic()
    eventually(lambda: lab.operate.run("vm", "pause", "one", "--wait").returncode == 0, 50, "a pause")
    assert time.monotonic() - started < 30
    lab.operate("vm", "unpause", "one", "--wait")
    after = lab.status()
    assert (after["boots"], int(after["ticks"]) > int(before["ticks"])) == (before["boots"], True)


def test_it_asks_for_its_address_anew_when_its_network_is_reset(lab: Lab) -> None:
    told = f"ADDRESS eth0 {lab.address()}/24"
    before = lab.lines().count(told)
    lab.operate("vm", "reset_network", "one", "--wait")
    eventually(lambda: lab.lines().count(told) > before, 60, "its address once more")
    assert lab.outside.pings(lab.address())


def test_a_network_that_the_host_cannot_have_is_the_fault_and_leaves_nothing(lab: Lab) -> None:
    lab.operate("network", "create", "broken", "10.97.0.0/24", "--bridge", "br97", "--bridge_interface", "nope0")
    words = ["--instance_type", "m1.nano", "--image", "tiny", "--network", "broken", "--wait"]
    done = lab.operate.run("vm", "boot", "--name", "three", *words)
    assert (done.returncode, "this host has no interface nope0" in done.stderr) == (1, True)
    assert "nope0" in str(lab.one("three")["fault"])
    lab.operate("vm", "delete", "three", "--wait")
    lab.operate("network", "delete", "broken")
    assert "br97" not in lab.host.run("ip", "-o", "link")
    assert [entry.name for entry in (lab.folder / "networks").iterdir()] == ["1"]


def test_a_snapshot_is_taken_while_it_runs(lab: Lab) -> None:
    lab.do("echo of-the-first > /root/marker; sync")
    lab.operate("vm", "snapshot", "one", "picture", "--wait")
    assert lab.operate.ask("image", "show", "picture")["status"] == "active"
    assert lab.status()["boots"] == "1"


def test_it_is_suspended_and_its_snapshot_boots_with_a_larger_disk_and_a_second_one(lab: Lab) -> None:
    lab.do(f"echo {lab.status()['ticks']} > /run/remembered")
    lab.operate("vm", "suspend", "one", "--wait")
    lab.operate("vm", "boot", "--name", "two", "--instance_type", "m1.wide", "--image", "picture", "--wait")
    lab.wait_ready("two")
    assert (lab.do("cat /root/marker", "two"), lab.status("two")["boots"]) == ("of-the-first\n", "2")
    sizes = lab.do("cat /sys/block/vda/size /sys/block/vdb/size", "two").split()
    assert sizes == [str(1024**3 // 512)] * 2
    assert lab.address("two") != lab.address()
    lab.operate("vm", "delete", "two", "--wait")


def test_it_resumes_with_its_memory(lab: Lab) -> None:
    lab.operate("vm", "resume", "one", "--wait")
    lab.wait_ready()
    remembered, status = int(lab.do("cat /run/remembered")), lab.status()
    assert status["boots"] == "1"
    assert remembered <= int(status["ticks"]) < remembered + 120
    eventually(lambda: int(lab.status()["ticks"]) > int(status["ticks"]), 30, "counting on")


def test_a_rescue_boots_beside_its_disk_and_it_comes_back_as_it_was(lab: Lab) -> None:
    lab.operate("vm", "rescue", "one", "--wait")
    eventually(lambda: re.search(r"BOOTS 1\b.*GUEST-READY", lab.console(), re.DOTALL), BOOT_S, "the rescue")
    lab.wait_ready()
    assert "vdb" in lab.console().rpartition("DISKS")[2].splitlines()[0]
    lab.operate("vm", "unrescue", "one", "--wait")
    eventually(lambda: lab._answers("one") and lab.status()["boots"] == "2", BOOT_S, "its own disk")
    assert lab.do("cat /root/marker") == "of-the-first\n"


def test_nothing_is_left_when_it_is_deleted(lab: Lab) -> None:
    lab.operate("vm", "delete", "one", "--wait")
    assert lab.operate.ask("volume", "list")[0]["status"] == "available"
    lab.operate("volume", "delete", "1")
    assert lab.operate.ask("network", "list")[0]["held"] == 0
    assert not [one for one in lab.operate.ask("action", "list") if one["state"] in {"requested", "running"}]
    assert [entry.name for entry in (lab.folder / "instances").iterdir()] == ["_base"]
    assert not (lab.folder / "networks").exists()
    assert set(re.findall(r"^\d+: ([^:@]+)", lab.host.run("ip", "-o", "link"), re.MULTILINE)) == {"lo", "out"}
    assert lab.host.run("nft", "list", "tables") == ""
    assert lab.host.run("virsh", "list", "--all", "--name").strip() == ""
    assert not re.search("dnsmasq|qemu", " ".join(inhabitants(lab.netns).values()))
