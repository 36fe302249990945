"""Servers of volumes: NBD by qemu-nbd, iSCSI by tgtd. Each serves one file and is killed by its own process id."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.integration.processes import Server, accepts, free_port, require_program, wait_until
from tests.integration.servers import scratch_folder

TARGET = "iqn.2010-10.org.openstack:volume-00000001"


@contextlib.contextmanager
def nbd(disk: Path, folder: Path, kind: str) -> Iterator[tuple[str, Server]]:
    """The source of a connection that reaches `disk`, over `tcp` or `unix`, and its server."""
    port, listening = free_port(), folder / "nbd.sock"
    where = ["-k", str(listening)] if kind == "unix" else ["-b", "127.0.0.1", "-p", str(port)]
    program = require_program("qemu-nbd")
    server = Server([program, "-t", "-f", "raw", "-x", "export", *where, str(disk)], folder / "nbd.log")
    server.start()
    try:
        server.wait_ready(lambda: listening.exists() if kind == "unix" else accepts(port), 2)
        yield (f"///export?socket={listening}" if kind == "unix" else f"//127.0.0.1:{port}/export"), server
    finally:
        server.kill()


class IscsiTarget:
    """tgtd with one target that has `disk` as LUN 1; with `login` it wants CHAP."""

    def __init__(self, disk: Path, folder: Path, login: tuple[str, str] | None) -> None:
        self._disk, self._login, self.port = disk, login, free_port()
        self._environment = {"TGT_IPC_SOCKET": str(folder / "tgtd")}
        program = require_program("tgtd")
        argv = [program, "-f", "--iscsi", f"portal=127.0.0.1:{self.port}"]
        self.server = Server(argv, folder / "tgtd.log", env=self._environment)

    @property
    def source(self) -> str:
        """The source of a connection, as 2011.2 wrote it."""
        return f"127.0.0.1:{self.port},1 {TARGET} 1"

    def start(self) -> None:
        """Serve, and return when clients are taken."""
        self.server.start()
        self.server.wait_ready(lambda: accepts(self.port), 2)
        wait_until(self._configure, 2, "tgtd's control socket")

    def _configure(self) -> bool:
        orders = [
            f"--op new --mode target --tid 1 -T {TARGET}",
            f"--op new --mode logicalunit --tid 1 --lun 1 -b {self._disk}",
            "--op bind --mode target --tid 1 -I ALL",
        ]
        if self._login:
            orders.append(f"--op new --mode account --user {self._login[0]} --password {self._login[1]}")
            orders.append(f"--op bind --mode account --tid 1 --user {self._login[0]}")
        return all(self._order(order) for order in orders)

    def _order(self, order: str) -> bool:
        command = [require_program("tgtadm"), "--lld", "iscsi", *order.split()]
        environment = {**os.environ, **self._environment}
        return subprocess.run(command, env=environment, capture_output=True, check=False, timeout=10).returncode == 0


@contextlib.contextmanager
def iscsi(disk: Path, login: tuple[str, str] | None = None) -> Iterator[IscsiTarget]:
    """A target that runs; tgtd takes no notice of TERM, so it is killed."""
    with scratch_folder() as folder:
        target = IscsiTarget(disk, folder, login)
        target.start()
        try:
            yield target
        finally:
            target.server.kill()
