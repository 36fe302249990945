"""The little guest boots in each of its forms and tells what the other tests need to know."""

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.integration.conftest import GuestImage
from tests.integration.processes import Server, free_port, require_program, wait_until

ANY = "0.0.0.0"  # noqa: S104 (a network here, nothing binds to it)
META_DATA = {"uuid": "11111111-2222", "hostname": "beta.example.org", "name": "beta",
             "files": [{"content_path": "/content/0000", "path": "/etc/greeting"}]}  # fmt: skip
NETWORK_DATA = {
    "links": [{"id": "tap1", "type": "bridge", "ethernet_mac_address": "52:54:00:12:34:56"}],
    "networks": [{"id": "n0", "link": "tap1", "type": "ipv4", "ip_address": "10.0.2.15", "netmask": "255.255.255.0",
                  "routes": [{"network": ANY, "netmask": ANY, "gateway": "10.0.2.2"}]}],
    "services": [],
}  # fmt: skip
USER_DATA = "#!/bin/sh\ncat /etc/greeting\n"


class Machine:
    """A QEMU of our own, without libvirt: the guest is what is tested here."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.console, self._qmp = folder / "console", folder / "qmp"
        argv = [require_program("qemu-system-x86_64"), "-accel", "tcg", "-m", "96", "-display", "none", "-no-reboot"]
        argv += ["-serial", f"file:{self.console}", "-qmp", f"unix:{self._qmp},server=on,wait=off", *arguments]
        self.server = Server(argv, folder / "output")

    def wait_for(self, marker: str, usual_s: float = 6) -> str:
        """Return the rest of the first console line that starts with this marker."""

        def rest() -> str | None:
            lines = self.console.read_text(errors="replace").splitlines() if self.console.exists() else []
            return next((line[len(marker) :].strip() or " " for line in lines if line.startswith(marker)), None)

        try:
            return wait_until(rest, usual_s, marker).strip()
        except TimeoutError as exc:
            raise AssertionError(f"{exc}\n{self.console.read_text(errors='replace')}{self.server.tail()}") from exc

    def ask(self, *commands: dict[str, Any]) -> None:
        """Send QMP commands, each of which must succeed."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(self._qmp))
            with connection.makefile("rw") as stream:
                stream.readline()
                for command in ({"execute": "qmp_capabilities"}, *commands):
                    stream.write(json.dumps(command) + "\n")
                    stream.flush()
                    answer = json.loads(stream.readline())
                    while "event" in answer:
                        answer = json.loads(stream.readline())
                    assert "return" in answer, answer


@contextlib.contextmanager
def booted(folder: Path, *arguments: str) -> Iterator[Machine]:
    machine = Machine(folder, *arguments)
    machine.server.start()
    try:
        yield machine
    finally:
        machine.server.kill()


def config_drive(folder: Path) -> Path:
    image, tree = folder / "config.img", folder / "openstack"
    (tree / "latest").mkdir(parents=True)
    (tree / "content").mkdir()
    (tree / "latest/meta_data.json").write_text(json.dumps(META_DATA, indent=2))
    (tree / "latest/network_data.json").write_text(json.dumps(NETWORK_DATA))
    (tree / "latest/user_data").write_text(USER_DATA)
    (tree / "content/0000").write_text("well met\n")
    require_program("mformat")
    subprocess.run(["mformat", "-i", image, "-C", "-f", "1440", "-v", "config-2", "::"], check=True)
    subprocess.run(["mcopy", "-s", "-i", image, tree, "::"], check=True)
    return image


def fetch(port: int, path: str) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        with connection.makefile() as stream:
            return stream.read()


def drive(path: Path, kind: str, serial: str) -> list[str]:
    device = f"virtio-blk,drive={serial},serial={serial}"
    return ["-drive", f"file={path},format={kind},if=none,id={serial}", "-device", device]


def test_a_guest_with_kernel_ramdisk_root_and_config_drive_does_what_it_says(
    guest_image: GuestImage,
    tmp_path: Path,
) -> None:
    root, port, volume = tmp_path / "root.qcow2", free_port(), tmp_path / "volume"
    backing = ["-F", "raw", "-b", str(guest_image.root)]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, root], check=True)
    volume.write_bytes(bytes(1 << 20))
    arguments = ["-kernel", str(guest_image.kernel), "-initrd", str(guest_image.ramdisk)]
    arguments += ["-append", "console=ttyS0 quiet panic=-1 root=/dev/vda"]
    arguments += [*drive(root, "qcow2", "root-1"), *drive(config_drive(tmp_path), "raw", "cfg-1")]
    arguments += ["-nic", f"user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{port}-:80"]
    with booted(tmp_path, *arguments) as machine:
        assert machine.wait_for("GUEST-READY").startswith("hostname=beta uptime=")
        assert machine.wait_for("ROOT") == "/dev/vda"
        assert machine.wait_for("BOOTS") == "1"
        assert machine.wait_for("CONFIG-DRIVE") == "uuid=11111111-2222 hostname=beta.example.org files=1"
        assert machine.wait_for("USER-DATA") == "well met"
        assert machine.wait_for("ADDRESS eth0") == "10.0.2.15/24"
        assert machine.wait_for("DISKS").split() == ["vda:32768:root-1", "vdb:2880:cfg-1"]
        status = fetch(port, "/cgi-bin/status")
        assert "hostname=beta boots=1" in status
        machine.ask(
            {"execute": "blockdev-add", "arguments": {"driver": "file", "filename": str(volume), "node-name": "v"}},
            {"execute": "device_add", "arguments": {"driver": "virtio-blk-pci", "drive": "v", "serial": "vol-7"}},
        )
        machine.wait_for("DISKS vda:32768:root-1 vdb:2880:cfg-1 vdc:2048:vol-7")
        machine.ask({"execute": "system_powerdown"})
        machine.wait_for("GUEST-POWEROFF")
        wait_until(lambda: not machine.server.alive, 1, "power-off")


def test_a_disk_boots_by_itself_and_no_dhcp_server_does_not_hold_it_up(guest_image: GuestImage, tmp_path: Path) -> None:
    disk = tmp_path / "disk.qcow2"
    backing = ["-F", "qcow2", "-b", str(guest_image.disk)]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, disk], check=True)
    unplugged = ["-netdev", "hubport,id=n,hubid=0", "-device", "virtio-net-pci,netdev=n"]
    with booted(tmp_path, *drive(disk, "qcow2", "d"), *unplugged) as machine:
        started = time.monotonic()
        assert machine.wait_for("GUEST-READY", 9).startswith("hostname=guest uptime=")
        assert machine.wait_for("ROOT") == "/dev/vda2"
        assert time.monotonic() - started < 45


def test_a_ramdisk_needs_no_disk(guest_image: GuestImage, tmp_path: Path) -> None:
    arguments = ["-kernel", str(guest_image.kernel), "-initrd", str(guest_image.ramdisk)]
    arguments += ["-append", "console=ttyS0 quiet host=alpha", "-nic", "user,model=virtio-net-pci"]
    with booted(tmp_path, *arguments) as machine:
        assert machine.wait_for("GUEST-READY").startswith("hostname=alpha uptime=")
        assert machine.wait_for("ADDRESS eth0") == "10.0.2.15/24"
