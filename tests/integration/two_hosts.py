"""Two compute hosts beside each other: namespaces with a libvirtd each, joined by a wire, with disks of their own."""

from __future__ import annotations

import contextlib
import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.integration.servers import LibvirtHost, running

ADDRESSES = ("10.7.0.1", "10.7.0.2")


def join(one: LibvirtHost, other: LibvirtHost) -> None:
    """Lay a wire between two hosts, over which they reach each other at ADDRESSES."""
    ends = ["wire", "netns", str(one.pid), "type", "veth", "peer", "name", "wire", "netns", str(other.pid)]
    subprocess.run(["ip", "link", "add", *ends], check=True, capture_output=True, timeout=30)
    for host, address in zip((one, other), ADDRESSES, strict=True):
        host.run("ip", "address", "add", f"{address}/24", "dev", "wire")
        host.run("ip", "link", "set", "wire", "up")


def hide(host: LibvirtHost, path: Path, behind: Path) -> None:
    """Have `path` be `behind` within a host: what looks like one folder on two hosts is two."""
    behind.mkdir(parents=True, exist_ok=True)
    path.mkdir(parents=True, exist_ok=True)
    host.run("mount", "--bind", str(behind), str(path))


@contextlib.contextmanager
def second_host(first: LibvirtHost, name: str) -> Iterator[LibvirtHost]:
    """Another host of the same kind, joined with the first."""
    kind = functools.partial(LibvirtHost, name=name, network=True, unprivileged=first.unprivileged)
    with running(kind) as host:
        join(first, host)
        yield host
