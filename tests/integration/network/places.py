"""Network namespaces wired together: hosts, what is plugged into their bridges, and the world outside."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.integration.processes import require_program, require_root, wait_until
from tests.integration.servers import LibvirtHost

_numbers = itertools.count(1)

LEASE_SCRIPT = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr replace "$ip/$mask" dev "$interface"
[ -z "$router" ] || ip route replace default via "$router"
echo "GOT $ip/$mask from $serverid router=$router dns=$dns domain=$domain mtu=$mtu name=$hostname"
"""


FETCH = """
import sys, urllib.request
data = sys.argv[2].encode() if sys.argv[2:] else None
print(urllib.request.urlopen(sys.argv[1], data, timeout=20).read().decode(), end="")
"""


SOLICIT = """
import ipaddress, socket, sys
mac = bytes.fromhex(sys.argv[1].replace(":", ""))
option = lambda code, data: code.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data
asked = option(1, bytes([0, 3, 0, 1]) + mac) + option(3, bytes(12)) + option(8, bytes(2))
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
    client.bind(("::", 546))
    client.settimeout(1)
    for _ in range(3):
        client.sendto(bytes([1, 0, 0, 7]) + asked, ("ff02::1:2", 547, 0, socket.if_nametoindex("eth0")))
        try:
            answer = client.recv(2000)
        except TimeoutError:
            continue
        at = answer.find(bytes([0, 5, 0, 24]))
        print(ipaddress.ip_address(answer[at + 4 : at + 20]) if at > 0 else "none", end="")
        break
"""


class Place:
    """A network namespace with a name; everything in it ends with it."""

    def __init__(self) -> None:
        own = Path("/proc/self/ns/net").readlink()
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "600"])
        self.netns = f"/proc/{self._holder.pid}/ns/net"
        wait_until(lambda: Path(self.netns).readlink() != own, 1, "the namespace")
        self.run("ip", "link", "set", "lo", "up")

    @property
    def pid(self) -> int:
        """A process that is there."""
        return self._holder.pid

    def command(self, *words: str) -> list[str]:
        """The command line that runs `words` here."""
        return ["nsenter", f"--net={self.netns}", "--", *words]

    def run(self, *words: str, timeout_s: float = 30) -> str:
        """Run a command here, which must succeed; its output."""
        done = subprocess.run(self.command(*words), capture_output=True, text=True, timeout=timeout_s, check=False)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def succeeds(self, *words: str) -> bool:
        """Run a command here whatever it answers."""
        return subprocess.run(self.command(*words), capture_output=True, timeout=60, check=False).returncode == 0

    def ip(self, *words: str) -> Any:
        """Ask `ip` for a document."""
        return json.loads(self.run("ip", "-j", "-d", *words) or "[]")

    def links(self) -> set[str]:
        """The names of the interfaces here."""
        return {link["ifname"] for link in self.ip("link", "show")}

    def get(self, url: str, *data: str) -> str:
        """Fetch a page from here, by POST when there is something to send; it must answer within 20 s."""
        return self.run(sys.executable, "-c", FETCH, url, *data)

    def pings(self, address: str) -> bool:
        """True when an address answers within a few seconds."""
        return any(self.succeeds("busybox", "ping", "-c", "1", "-W", "1", address) for _ in range(3))

    def processes(self) -> list[str]:
        """The command lines of what runs here, but for what holds the place."""
        return [command for pid, command in inhabitants(self.netns).items() if command and pid != self.pid]

    def close(self) -> None:
        """End what runs here, and the place."""
        end_all_in(self.netns)
        self._holder.wait(10)


def inhabitants(netns: str) -> dict[int, str]:
    """The processes in a network namespace, with their command lines."""
    here, found = Path(netns).readlink(), {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "ns/net").readlink() == here:
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def end_all_in(netns: str) -> None:
    """End everything in a network namespace, which must not be this process's."""
    assert Path(netns).readlink() != Path("/proc/self/ns/net").readlink()
    for pid in inhabitants(netns):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)


@contextlib.contextmanager
def places(count: int) -> Iterator[list[Place]]:
    """So many places, not connected."""
    require_root()
    for program in ("nsenter", "ip", "busybox"):
        require_program(program)
    made: list[Place] = []
    try:
        while len(made) < count:
            made.append(Place())
        yield made
    finally:
        for place in made:
            place.close()


def wire(one: Place | LibvirtHost, its_end: str, other: Place, other_end: str) -> None:
    """Connect two places."""
    number = next(_numbers)
    ends = [f"w{os.getpid() % 100000}x{number}{side}" for side in "ab"]
    subprocess.run(["ip", "link", "add", ends[0], "type", "veth", "peer", ends[1]], check=True)
    for place, end, name in ((one, ends[0], its_end), (other, ends[1], other_end)):
        subprocess.run(["ip", "link", "set", end, "netns", str(place.pid), "name", name], check=True)
        place.run("ip", "link", "set", name, "up")


def plug(host: Place, bridge: str, port: str, guest: Place, mac: str) -> None:
    """Put a guest of this MAC address, whose interface is eth0, into a host's bridge."""
    wire(host, port, guest, "eth0")
    host.run("ip", "link", "set", port, "master", bridge)
    be(guest, mac)


def be(guest: Place, mac: str) -> None:
    """Give the guest's interface another MAC address, and no other."""
    guest.run("ip", "link", "set", "eth0", "down", "address", mac)
    guest.run("ip", "addr", "flush", "dev", "eth0")
    guest.run("ip", "link", "set", "eth0", "up")


def ask_dhcp6(guest: Place, mac: str) -> str:
    """The address that a guest of this MAC address is offered by DHCPv6; "none" or, when nobody answers, empty."""
    wait_until(lambda: "tentative" not in guest.run("ip", "-6", "addr", "show", "eth0"), 5, "its link-local address")
    return guest.run(sys.executable, "-c", SOLICIT, mac)


def ask_dhcp(guest: Place, folder: Path, tries: int = 3) -> dict[str, str]:
    """What the guest is told by DHCP: address, from, router, dns, domain, mtu, name; empty when nobody answers."""
    script = folder / "lease"
    script.write_text(LEASE_SCRIPT)
    script.chmod(0o755)
    words = ["busybox", "udhcpc", "-f", "-q", "-n", "-i", "eth0", "-t", str(tries), "-T", "1", "-s", str(script)]
    more = ["-O", "mtu", "-O", "domain", "-O", "hostname"]
    done = subprocess.run(guest.command(*words, *more), capture_output=True, text=True, timeout=60, check=False)
    told = re.search(r"GOT (\S+) from (\S+) (.*)", done.stdout)
    if told is None:
        return {}
    facts = dict(word.split("=", 1) for word in told[3].split() if "=" in word)
    return {"address": told[1], "from": told[2], **facts}
