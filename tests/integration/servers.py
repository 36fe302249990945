"""Real servers for the integration tests: RabbitMQ, PostgreSQL, MariaDB and a libvirt host, all private.

Each runs from a scratch folder, on loopback, on a port chosen when it starts, and is stopped by its own process id.
`stop`, `kill` (as a crash would) and `start` again keep data and port, so a test can take a server away and bring it
back. Databases and virtual hosts are cheap: make one for each test.
"""

import contextlib
import functools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from tests.integration.processes import Server, accepts, free_port, require_program, require_root, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder with a short path, because a unix socket's may not exceed 107 bytes; removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="mn-", dir="/tmp"))
    folder.chmod(0o755)  # the database servers run as users of their own
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(*argv: str, timeout_s: float = 120, **kwargs: object) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False, **kwargs)  # type: ignore[call-overload]
    if done.returncode:
        raise RuntimeError(f"{argv} failed with {done.returncode}: {done.stdout}{done.stderr}")
    return str(done.stdout)


def _as_user(user: str) -> list[str]:
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--"]


class RabbitMQ:
    """A RabbitMQ node of its own, with its own epmd."""

    def __init__(self, folder: Path) -> None:
        """Prepare a node below `folder`; nothing runs yet."""
        self._ctl = require_program("rabbitmqctl")
        program = require_program("rabbitmq-server")
        self.folder, self.port = folder, free_port()
        self._node = f"mn{self.port}@localhost"
        for name in ("mnesia", "log", "home"):
            (folder / name).mkdir(exist_ok=True)
        cookie = folder / "home/.erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        (folder / "enabled_plugins").write_text("[].\n")
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\nlog.file.level = warning\nlog.console = false\n"
            "disk_free_limit.absolute = 50MB\nvm_memory_high_watermark.absolute = 512MB\n",
        )
        self._env = self._environment()
        self._server = Server([program], folder / "log/output", env=self._env)

    def _environment(self) -> dict[str, str]:
        loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
        idle = "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"
        folder = self.folder
        return {
            "HOME": str(folder / "home"),
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "rabbit.pid"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "config"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{idle} {loopback}",
            "RABBITMQ_CTL_ERL_ARGS": loopback,
            "ERL_EPMD_PORT": str(free_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP_SECONDS": "0",
        }

    def start(self) -> None:
        """Start, or start again on the same data and port; return when clients are accepted."""
        self._server.start()
        self._server.wait_ready(functools.partial(accepts, self.port), 12)

    def stop(self) -> None:
        """Shut down cleanly."""
        self._server.stop(10)

    def kill(self) -> None:
        """Crash: every process of the node ends at once."""
        self._server.kill()

    def url(self, vhost: str = "/") -> str:
        """The transport URL of a virtual host."""
        return f"rabbit://guest:guest@127.0.0.1:{self.port}/{'' if vhost == '/' else quote(vhost, safe='')}"

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl; it takes one to three seconds."""
        return _run(self._ctl, "-q", "-n", self._node, *arguments, env={**os.environ, **self._env})

    def new_vhost(self, name: str = "") -> str:
        """Make an empty virtual host that guest may use, and return its transport URL."""
        name = name or f"v{secrets.token_hex(4)}"
        self.ctl(
            "eval",
            f'rabbit_vhost:add(<<"{name}">>, <<"tests">>), '
            f'rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{name}">>, '
            '<<".*">>, <<".*">>, <<".*">>, <<"tests">>).',
        )
        return self.url(name)

    def queues(self, vhost: str = "/") -> dict[str, int]:
        """Name and number of messages of every queue of a virtual host."""
        lines = self.ctl("list_queues", "-p", vhost, "--no-table-headers", "name", "messages").splitlines()
        return {name: int(count) for name, count in (line.split("\t") for line in lines if "\t" in line)}

    def purge_queue(self, name: str, vhost: str = "/") -> None:
        """Drop the messages that wait in a queue."""
        self.ctl("purge_queue", "-p", vhost, name)

    def delete_queue(self, name: str, vhost: str = "/") -> None:
        """Delete a queue under its consumers."""
        self.ctl("delete_queue", "-p", vhost, name)

    def close_connections(self, vhost: str = "/") -> None:
        """Cut every client of a virtual host off."""
        self.ctl("close_all_connections", "--vhost", vhost, "cut off by a test")


class PostgreSQL:
    """A PostgreSQL cluster of its own, run as the user postgres; its writes survive `kill`, not a power cut."""

    def __init__(self, folder: Path, options: Sequence[str] = ("fsync=off",)) -> None:
        """Make a cluster below `folder`; `options` are settings of postgresql.conf."""
        program, initdb = require_program("postgres"), require_program("initdb")
        self.port = free_port()
        data = folder / "data"
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        _run(
            *_as_user("postgres"), initdb, "-D", str(data), "-A", "trust", "-U", "postgres", "-E", "UTF8", "-N",
            "--no-instructions", "--locale=C.UTF-8", cwd=folder,
        )  # fmt: skip
        settings = [f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}"]
        settings += ["max_connections=200", *options]
        argv = [program, "-D", str(data), *(word for setting in settings for word in ("-c", setting))]
        self._server = Server(argv, folder / "output", user="postgres")

    def start(self) -> None:
        """Start, or start again on the same data and port; return when queries are answered."""
        self._server.start()
        self._server.wait_ready(self._answers, 2)

    def _answers(self) -> bool:
        import psycopg

        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _connect(self) -> "psycopg.Connection":  # noqa: F821
        import psycopg

        return psycopg.connect(f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres", autocommit=True)

    def stop(self) -> None:
        """Shut down cleanly, cutting clients off."""
        if self._server.alive:
            self._terminate_clients()
        self._server.stop(2)

    def _terminate_clients(self) -> None:
        with contextlib.closing(self._connect()) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'",
            )

    def kill(self) -> None:
        """Crash: every process of the server ends at once."""
        self._server.kill()

    def create_database(self, name: str = "") -> str:
        """Make an empty database and return its SQLAlchemy URL."""
        name = name or f"d{secrets.token_hex(4)}"
        with contextlib.closing(self._connect()) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[arg-type]
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{name}"


class MariaDB:
    """A MariaDB server of its own, run as the user mysql."""

    def __init__(self, folder: Path) -> None:
        """Make a data folder below `folder`; nothing runs yet."""
        program, install = require_program("mariadbd"), require_program("mariadb-install-db")
        self.port = free_port()
        self._socket = folder / "socket"
        temporary = folder / "tmp"  # a server that starts removes what others have in a folder they share
        temporary.mkdir()
        if os.geteuid() == 0:
            shutil.chown(folder, "mysql", "mysql")
            shutil.chown(temporary, "mysql", "mysql")
        _run(
            *_as_user("mysql"), install, "--no-defaults", f"--datadir={folder / 'data'}", f"--tmpdir={temporary}",
            "--skip-test-db", "--auth-root-authentication-method=normal", cwd=folder,
        )  # fmt: skip
        argv = [
            program,
            "--no-defaults",
            f"--datadir={folder / 'data'}",
            f"--tmpdir={temporary}",
            f"--socket={self._socket}",
            f"--pid-file={folder / 'pid'}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-buffer-pool-size=32M",
            "--character-set-server=utf8mb4",
        ]
        self._server = Server(argv, folder / "output", user="mysql")

    def start(self) -> None:
        """Start, or start again on the same data and port; return when queries are answered."""
        self._server.start()
        self._server.wait_ready(self._answers, 4)

    def _answers(self) -> bool:
        import pymysql

        if not accepts(self.port):  # PyMySQL leaks its socket when it is refused
            return False
        try:
            self._execute("CREATE USER IF NOT EXISTS nova@'127.0.0.1'", "GRANT ALL ON *.* TO nova@'127.0.0.1'")
        except pymysql.err.OperationalError:
            return False
        return True

    def _execute(self, *statements: str) -> None:
        import pymysql

        with (
            contextlib.closing(pymysql.connect(unix_socket=str(self._socket), user="root")) as connection,
            connection.cursor() as cursor,
        ):
            for statement in statements:
                cursor.execute(statement)

    def stop(self) -> None:
        """Shut down cleanly."""
        self._server.stop(5)

    def kill(self) -> None:
        """Crash: the server ends at once."""
        self._server.kill()

    def create_database(self, name: str = "") -> str:
        """Make an empty database and return its SQLAlchemy URL."""
        name = name or f"d{secrets.token_hex(4)}"
        self._execute(f"CREATE DATABASE `{name}`")
        return f"mysql+pymysql://nova@127.0.0.1:{self.port}/{name}?charset=utf8mb4"


class LibvirtHost:
    """A libvirtd of its own below a folder; with `network` also a network namespace: a compute host by itself."""

    def __init__(self, folder: Path, *, name: str = "", network: bool = False, unprivileged: bool = False) -> None:
        """Prepare the host; nothing runs yet. Without `network` its guests' taps are in the machine's namespace.

        unprivileged: QEMU runs as the package's own user, as on every Debian host, and not as root.
        """
        require_root()
        for program in ("libvirtd", "virtlogd", "qemu-system-x86_64", "ip"):
            require_program(program)
        self.folder, self.name, self.unprivileged = folder, name or f"h{secrets.token_hex(3)}", unprivileged
        self.socket = folder / "run/libvirt-sock"
        options = [word for word, is_wanted in (("--net", network), ("--unprivileged", unprivileged)) if is_wanted]
        arguments = [str(folder), "--name", self.name, *options]
        program = str(REPOSITORY / "bin/_libvirt-host")
        self._server = Server([program, *arguments], folder / "output", own_namespace=True)

    @property
    def uri(self) -> str:
        """The libvirt URI that reaches this host from outside its namespaces."""
        return f"qemu+unix:///system?socket={self.socket}"

    @property
    def lxc_uri(self) -> str:
        """The same libvirtd's URI for containers."""
        return f"lxc+unix:///system?socket={self.socket}"

    @property
    def pid(self) -> int:
        """The host's init, as seen from outside."""
        return self._server.init_pid

    def start(self) -> None:
        """Start libvirtd and virtlogd; return when libvirtd accepts clients."""
        self._server.start()
        self._server.wait_ready(self._accepts, 3)

    def _accepts(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
        return True

    def stop(self) -> None:
        """End the host with its guests."""
        self._server.kill()

    kill = stop

    def stop_libvirtd(self) -> None:
        """End libvirtd alone; the guests run on."""
        self._server.signal(signal.SIGUSR1)
        wait_until((self.folder / "run/libvirtd.ended").exists, 5, "end of libvirtd")

    def start_libvirtd(self) -> None:
        """Start libvirtd again over the guests that run."""
        self._server.signal(signal.SIGUSR2)
        self._server.wait_ready(self._accepts, 3)

    def restart_libvirtd(self) -> None:
        """What an upgrade of libvirt does: clients lose their connection, guests run on."""
        self.stop_libvirtd()
        self.start_libvirtd()

    def inside(self, *argv: str) -> list[str]:
        """The command line that runs `argv` within this host's namespaces."""
        return ["nsenter", "-t", str(self.pid), "-m", "-n", "-u", "-i", "-p", "-r", "-w", "--", *argv]

    def run(self, *argv: str, timeout_s: float = 120) -> str:
        """Run a command within this host and return its output; raise RuntimeError when it fails."""
        return _run(*self.inside(*argv), timeout_s=timeout_s)


S = TypeVar("S", RabbitMQ, PostgreSQL, MariaDB, LibvirtHost)


@contextlib.contextmanager
def running(kind: Callable[[Path], S]) -> Iterator[S]:
    """Start a server of this kind in a scratch folder; at the end nothing of it is left."""
    with scratch_folder() as folder:
        server = kind(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()
