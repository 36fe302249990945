"""A whole deployment in one process: migrated SQLite, the embedded bus, fake hosts in one fake cloud, and the API.

`Deployment` runs its daemons as Service objects on threads, and can stop, restart and starve them. `Daemon` is a real
nova-compute process for tests that kill one; its fake hypervisor lives in files and outlives it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from oslo_config.cfg import ConfigOpts

from compute import conf as conf_module
from compute.api import API, Accepted
from compute.context import RequestContext, get_admin_context
from compute.service import Service, build_api
from db import actions, images, instances, migration, networks
from db.actions import Action
from db.instances import Instance
from db.session import Database
from virt.fake.driver import FakeDriver
from virt.fake.hypervisor import FakeCloud

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")
ADMIN = get_admin_context()
MEMBER = RequestContext(user_id="ann", project_id="blue")


def eventually(fact: Callable[[], T], timeout_s: float = 20.0, what: str = "") -> T:
    """Poll until `fact()` is truthy and return it; AssertionError with its last value otherwise."""
    until = time.monotonic() + timeout_s
    while True:
        value = fact()
        if value:
            return value
        if time.monotonic() > until:
            raise AssertionError(f"{what or fact} is still {value!r} after {timeout_s} s")
        time.sleep(0.01)


def template_database(directory: Path) -> Path:
    """A migrated SQLite file with an image and a network, made once and copied."""
    path = directory / "nova.sqlite"
    database = Database(f"sqlite:///{path}")
    migration.sync(database)
    database.run(seed, directory)
    database.dispose()
    return path


def seed(tx: Any, directory: Path) -> None:
    """What most tests want to be there: image `tiny`, network `net1`."""
    picture = directory / "tiny.raw"
    picture.write_bytes(b"\0" * 512)
    images.create(
        tx, name="tiny", status="active", disk_format="raw", location=str(picture), is_public=True, properties={}
    )
    networks.create(tx, label="net1", cidr="10.1.0.0/20", bridge="br1", gateway="10.1.0.1", dhcp_start="10.1.0.2")


class Deployment:
    """Some fake hosts and everything they need; use as a context manager."""

    def __init__(self, directory: Path, template: Path | None = None, **overrides: Any) -> None:
        self.directory = directory
        self.overrides = {
            "state_path": str(directory),
            "compute_driver": "fake",
            "report_interval": 0.5,
            "redrive_interval": 0.3,
            "periodic_interval": 3600,
            "lifecycle_events": False,  # tests say when to look
            "graceful_stop_timeout": 5,
            "quota_instances": -1,
            "quota_cores": -1,
            **overrides,
        }
        if template is not None:
            shutil.copy(template, directory / "nova.sqlite")
        self.cloud = FakeCloud()
        self.services: dict[str, Service] = {}
        self.drivers: dict[str, FakeDriver] = {}
        self.conf = self.conf_for("api")
        self.api: API = build_api(self.conf)
        self.db: Database = self.api.db

    def conf_for(self, host: str) -> ConfigOpts:
        """The configuration of one host."""
        return conf_module.load([str(self._empty())], {**self.overrides, "host": host})

    def _empty(self) -> Path:
        path = self.directory / "empty.conf"
        path.touch()
        return path

    def __enter__(self) -> Deployment:
        return self

    def __exit__(self, *_: object) -> None:
        for driver in self.drivers.values():
            driver.faults.release()
        for host in list(self.services):
            self.stop(host)
        self.api.close()

    def start(self, *hosts: str) -> Deployment:
        """Start daemons for these hosts; a host that was stopped before has its guests still."""
        for host in hosts:
            driver = self.drivers.setdefault(host, FakeDriver(self.cloud))
            service = Service(self.conf_for(host), driver=driver)
            service.start()
            self.services[host] = service
        return self

    def stop(self, host: str) -> None:
        """Stop a host's daemon in good order."""
        self.services.pop(host).stop()

    # -- what tests ask ---------------------------------------------------------------------------------------------

    def boot(self, context: RequestContext = ADMIN, *, wait: bool = True, **request: Any) -> int:
        """Boot one instance and return its id, when it is active unless `wait` is false."""
        defaults = {"image": "tiny", "instance_type": "m1.tiny"}
        accepted = self.api.create(context, **{**defaults, **request})[0]
        if wait:
            self.done(accepted)
        return accepted.instance_id

    def done(self, accepted: Accepted, timeout_s: float = 20.0) -> dict[str, Any]:
        """Wait for an order; raises what made it fail."""
        return self.api.wait(ADMIN, accepted, timeout_s)

    def instance(self, instance_id: int) -> Instance:
        """The row, deleted or not."""
        return self.db.query(instances.get, instance_id, read_deleted=True)

    def actions(self, instance_id: int) -> list[Action]:
        """Its history."""
        return self.db.query(actions.list_for, instance_id)

    def idle(self, instance_id: int, timeout_s: float = 20.0) -> Instance:
        """The row, once no task holds it."""
        return eventually(
            lambda: row if (row := self.instance(instance_id)).task_state is None else None, timeout_s, "an idle row"
        )

    def ring(self, host: str, verb: str, context: RequestContext = ADMIN, **args: Any) -> None:
        """Cast as a plain client would."""
        assert self.api.rpc.cast(context, host, verb, **args)

    def call(self, host: str, verb: str, context: RequestContext = ADMIN, **args: Any) -> Any:
        """Call as a plain client would."""
        return self.api.rpc.call(context, host, verb, **args)


class Daemon:
    """A nova-compute process on the fake driver, with its guests in files."""

    def __init__(self, directory: Path, host: str, *, inside: Sequence[str] = (), **options: Any) -> None:
        """inside: the words before a command that run it where the daemon belongs."""
        self.directory, self.host, self._inside = directory, host, inside
        self.options = {
            "state_path": directory,
            "host": host,
            "compute_driver": "fake",
            "fake_state_path": directory / "fake",
            "report_interval": 0.5,
            "redrive_interval": 1,
            "periodic_interval": 3600,
            **options,
        }
        self.log = directory / f"{host}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, timeout_s: float = 60.0) -> Daemon:
        """Start it and return when it consumes."""
        (self.directory / "fake").mkdir(exist_ok=True)
        config = self.write_config()
        begun = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            command = [*self._inside, sys.executable, "-m", "compute.service", "--config-file", str(config)]
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ})
        eventually(lambda: self._ready(begun), timeout_s, f"{self.host} ready")
        return self

    def write_config(self) -> Path:
        """Write its configuration file, which other programs may use as well."""
        config = self.directory / f"{self.host}.conf"
        config.write_text("[DEFAULT]\n" + "".join(f"{name} = {value}\n" for name, value in self.options.items()))
        return config

    def _ready(self, begun: int) -> bool:
        assert self.process is not None
        text = self.log.read_bytes()[begun:].decode(errors="replace")
        if self.process.poll() is not None:
            raise AssertionError(f"{self.host} ended with {self.process.returncode}:\n{text[-3000:]}")
        return "nova-compute ready" in text

    def kill(self) -> None:
        """kill -9."""
        self.end(signal.SIGKILL)

    def end(self, number: int = signal.SIGTERM, timeout_s: float = 60.0) -> int:
        """Signal it, wait for its end and return its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def __enter__(self) -> Daemon:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
