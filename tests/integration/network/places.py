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
        here, found = Path(self.netns).readlink(), []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (entry / "ns/net").readlink() == here and entry.name != str(self._holder.pid):
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        return [command for command in found if command]

    def close(self) -> None:
        """End what runs here, and the place."""
        here = Path(self.netns).readlink()
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (entry / "ns/net").readlink() == here:
                    os.kill(int(entry.name), 9)
        self._holder.wait(10)


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
