"""One daemon owns a host: its identity is on disk and in the services row, and both must agree.

On one machine a file lock decides. A state directory copied to another machine is found out by watching whether the
row's heartbeat moves. A host that was renamed refuses to start, because its guests belong to the old name.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
import uuid
from pathlib import Path
from typing import IO

from compute import __version__
from compute.errors import HostConflictError
from db import instances, services
from db.errors import DuplicateRowError
from db.services import Service
from db.session import Database, Tx

LOG = logging.getLogger(__name__)
BINARY = "nova-compute"


class Identity:
    """This daemon's right to its host, held from `acquire` to `release`."""

    def __init__(self, state_path: str, host: str) -> None:
        self.host = host
        self.owner = str(uuid.uuid4())
        self._directory = Path(state_path)
        self._lock: IO[str] | None = None

    def acquire(
        self, db: Database, *, topic: str, zone: str, enabled: bool, report_interval_s: float, down_time_s: float
    ) -> int:
        """Register this start and return the service's id; HostConflictError, with nothing written, when it may not."""
        self._lock_directory()
        self._refuse_a_new_name(db)
        compute_id = self._compute_id()
        row = self._check(db, compute_id)
        if row is not None and row.machine != machine_id():
            self._watch(db, row, report_interval_s, down_time_s)

        def register(tx: Tx) -> int:
            values = {"compute_id": compute_id, "machine": machine_id(), "version": __version__}
            if row is not None:
                services.take_over(tx, row.id, self.owner, **values)
                return row.id
            new = {"host": self.host, "binary": BINARY, "topic": topic, "availability_zone": zone}
            service_id = services.create(tx, {**new, "disabled": not enabled})
            services.take_over(tx, service_id, self.owner, **values)
            return service_id

        try:
            return db.run(register)
        except DuplicateRowError as exc:
            raise HostConflictError(f"host {self.host}: another daemon registered it at this moment") from exc

    def release(self) -> None:
        """Let another start have the host."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _lock_directory(self) -> None:
        """Take the lock file of this host name: several hosts may share a state directory, one daemon each."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            lock = (self._directory / f"{BINARY}.{self.host}.lock").open("w")
        except OSError as exc:
            raise HostConflictError(f"state_path {self._directory}: {exc.strerror}") from exc
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            lock.close()
            raise HostConflictError(f"another {BINARY} runs for host {self.host} in {self._directory}") from exc
        self._lock = lock

    def _compute_id(self) -> str:
        """The identity on disk, made at the first start of a host."""
        path = self._directory / f"compute_id.{self.host}"
        if not path.exists():
            draft = path.with_name(f".{path.name}.{os.getpid()}")
            draft.write_text(str(uuid.uuid4()))
            draft.rename(path)
        return path.read_text().strip()

    def _refuse_a_new_name(self, db: Database) -> None:
        """A host that is new here, where another one's identity lies unused and its guests are, has been renamed."""
        if (self._directory / f"compute_id.{self.host}").exists():
            return
        for identity in self._directory.glob("compute_id.*"):
            old = identity.name.removeprefix("compute_id.")
            guests = db.query(instances.list_all, host=old)
            if guests and not self._is_served(old):
                raise HostConflictError(
                    f"state_path {self._directory} belongs to host {old}, which has {len(guests)} instances, and the "
                    f"configuration calls this host {self.host}: set host = {old}, or move its instances away first"
                )

    def _is_served(self, host: str) -> bool:
        """True if a daemon of that host runs on this state directory now: several hosts may share one."""
        try:
            with (self._directory / f"{BINARY}.{host}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False

    def _check(self, db: Database, compute_id: str) -> Service | None:
        by_name = db.query(services.find, self.host, BINARY)
        by_id = db.query(services.by_compute_id, compute_id)
        if by_id is not None and by_id.host != self.host:
            raise HostConflictError(
                f"this daemon is host {by_id.host} in the database, and the configuration calls it {self.host}: "
                f"set host = {by_id.host}, or remove its guests and its service first"
            )
        if by_name is not None and by_name.compute_id not in {None, compute_id}:
            raise HostConflictError(
                f"host {self.host} belongs to the daemon with compute_id {by_name.compute_id}, this one is {compute_id}"
            )
        return by_name

    def _watch(self, db: Database, row: Service, report_interval_s: float, down_time_s: float) -> None:
        """The row was written on another machine: refuse while that daemon's heartbeat still moves."""
        live = next((one for one in db.query(services.list_all, host=self.host, binary=BINARY)), None)
        if live is None or live.age_s is None or live.age_s > down_time_s:
            return
        LOG.warning("host %s was last served from another machine; watching its heartbeat", self.host)
        until = time.monotonic() + 2 * report_interval_s + 1
        while time.monotonic() < until:
            now = db.query(services.find, self.host, BINARY)
            if now is not None and now.report_count != row.report_count:
                raise HostConflictError(f"host {self.host} is served by a live daemon on another machine")
            time.sleep(min(0.2, report_interval_s / 5))


def machine_id() -> str:
    """What tells this machine from others: systemd's machine id where there is one, else the kernel's boot id."""
    for name in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        try:
            text = Path(name).read_text().strip()
        except OSError:
            continue
        if text:
            return text[:64]
    return "unknown"
