"""Server processes of a test run: contained, so that nothing outlives the run, however it ends.

A server gets a PID namespace of its own: when pytest dies, the kernel kills the namespace's init, and with it every
process the server ever forked. Where the kernel refuses that, it gets a session and the parent-death signal instead.
"""

import atexit
import contextlib
import functools
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

T = TypeVar("T")

PATIENCE = 5.0  # how many times its usual time a server may take before a test says it does not start

PACKAGES = {
    "rabbitmq-server": "rabbitmq-server",
    "rabbitmqctl": "rabbitmq-server",
    "epmd": "rabbitmq-server",
    "postgres": "postgresql",
    "initdb": "postgresql",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
    "libvirtd": "libvirt-daemon-system",
    "libvirt_lxc": "libvirt-daemon-driver-lxc",
    "virtlogd": "libvirt-daemon-system",
    "virsh": "libvirt-clients",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "qemu-ga": "qemu-guest-agent",
    "qemu-nbd": "qemu-utils",
    "tgtd": "tgt",
    "tgtadm": "tgt",
    "dnsmasq": "dnsmasq-base",
    "dhcp_release": "dnsmasq-utils",
    "ip": "iproute2",
    "iptables": "iptables",
    "ebtables": "ebtables",
    "ipset": "ipset",
    "conntrack": "conntrack",
    "nft": "nftables",
    "busybox": "busybox-static",
    "mkfs.ext4": "e2fsprogs",
    "nsenter": "util-linux",
    "mformat": "mtools",
    "setpriv": "util-linux",
    "shellcheck": "shellcheck",
}
SEARCHED = ("/usr/lib/libvirt", "/usr/lib/rabbitmq/bin", "/usr/lib/postgresql/*/bin", "/usr/sbin", "/sbin")

# PID 1 of a namespace has to reap orphans and hand TERM on; any other signal goes to the server by kill().
INIT = """
"$@" &
main=$!
trap 'kill -TERM $main 2>/dev/null' TERM
while kill -0 $main 2>/dev/null; do wait $main; code=$?; done
exit $code
"""


def find_program(name: str) -> str | None:
    """Return the path of a program, also where Debian keeps servers that are not on PATH."""
    for folder in SEARCHED:
        for path in sorted(Path("/").glob(f"{folder[1:]}/{name}"), reverse=True):
            if os.access(path, os.X_OK):
                return str(path)
    return shutil.which(name)


def require_program(name: str) -> str:
    """Return the path of a program; fail where bin/test could have installed it, skip with the reason elsewhere."""
    path = find_program(name)
    if path is None:
        unavailable(f"{name} is missing: apt-get install {PACKAGES.get(name, name)} (bin/test as root does it)")
    return path


def require_root() -> None:
    """Skip, with the reason, a test that needs root's powers when we have none."""
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces, bridges and libvirt's system daemon are root's alone")


def unavailable(reason: str) -> NoReturn:
    """Fail where root and apt could have put it right; skip where they could not."""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def is_alive(pid: int) -> bool:
    """True unless this process has ended, whether or not anybody has asked for its end yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(ready: Callable[[], T | None], usual_s: float, what: str) -> T:
    """Poll until `ready` returns something true; raise TimeoutError naming `what` after PATIENCE times the usual."""
    deadline = time.monotonic() + usual_s * PATIENCE
    while True:
        if result := ready():
            return result
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {usual_s * PATIENCE:.0f} s")
        time.sleep(0.05)


_given: set[int] = set()


def free_port() -> int:
    """Return a loopback port nobody listens on, below the range the kernel hands to clients; never the same one twice.

    Each of eight workers side by side has a range to itself, so that none takes what another is about to listen on.
    """
    first = 20000 + 1500 * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 8)
    while True:
        port = random.randrange(first, first + 1500)
        if port in _given:  # who has it may be about to listen
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given.add(port)
            return port


def accepts(port: int) -> bool:
    """Say whether something on loopback takes connections on this port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@functools.cache
def _namespace() -> list[str]:
    """The command that gives a program a PID namespace of its own; nothing where the kernel does not let us."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--propagation", "unchanged", "--kill-child"]
    if os.geteuid() != 0:
        command += ["--user", "--map-current-user"]
    works = subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    return command if works else []


class Server:
    """One server program with all it forks; `start` after `stop` or `kill` runs it again."""

    def __init__(
        self,
        argv: Sequence[str],
        log: Path,
        *,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        own_namespace: bool = False,
    ) -> None:
        """Prepare `argv` to run as `user` (when we are root); own_namespace: the program unshares by itself."""
        self.log = log
        self._env = {**os.environ, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **(env or {})}
        self._contained = own_namespace or bool(_namespace())
        if user and os.geteuid() == 0:
            argv = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--", *argv]
        if _namespace() and not own_namespace:
            argv = [*_namespace(), "sh", "-c", INIT, "init", *argv]
        self._argv = ["setpriv", "--pdeathsig", "KILL", *argv]
        self._process: subprocess.Popen[bytes] | None = None
        self._init = 0

    @property
    def init_pid(self) -> int:
        """The process to signal: the namespace's init as seen from here, or the server itself."""
        return self._init

    @property
    def alive(self) -> bool:
        """Whether the server runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the program, not waiting until it serves."""
        assert not self.alive, f"{self._argv} already runs"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
                start_new_session=True,
            )
        atexit.register(self.kill)
        self._init = wait_until(self._find_init, 1, f"start of {self._argv}")

    def _find_init(self) -> int:
        assert self._process is not None
        pid = self._process.pid
        if not self._contained:
            return pid
        if self._process.poll() is not None:
            raise RuntimeError(f"{self._argv} ended at once: {self.tail()}")
        if Path(f"/proc/{pid}/comm").read_text().strip() != "unshare":
            return 0  # still what runs before: setpriv, or the script that unshares; its children are not the init
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server's init."""
        os.kill(self._init, number)

    def stop(self, usual_s: float = 5) -> None:
        """End the server cleanly by TERM, then make sure that nothing of it is left."""
        if self._process is not None and self.alive:
            self.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(usual_s * PATIENCE)
        self.kill()

    def kill(self) -> None:
        """End the server and all its children at once, as a crash would."""
        atexit.unregister(self.kill)
        if self._process is None:
            return
        if self.alive and self._init:
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                self.signal(signal.SIGKILL)
                self._process.wait(10)
        self._process.kill()  # when there is no init yet, or it was not the right one
        if not self._contained:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        self._process, self._init = None, 0

    def wait_ready(self, ready: Callable[[], object], usual_s: float) -> None:
        """Poll `ready`; raise with the end of the log when the server ends or takes too long."""

        def ready_or_dead() -> object:
            if not self.alive:
                raise RuntimeError(f"{self._argv} ended: {self.tail()}")
            return ready()

        try:
            wait_until(ready_or_dead, usual_s, f"{self._argv}")
        except TimeoutError as exc:
            raise TimeoutError(f"{exc}: {self.tail()}") from exc

    def tail(self) -> str:
        """The end of what the server printed."""
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else "(no log)"
