"""A deployment on real servers: the API in the test process, every daemon a process of its own on the fake driver."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from compute.states import Vm
from db import migration
from tests.functional.harness import ROOT, Daemon, Deployment, eventually, seed

QUICK = {"redrive_interval": 1, "report_interval": 0.5, "rpc_send_retry": 1, "rpc_response_timeout": 20}


class Site(Deployment):
    """Some hosts' daemons on one broker and one database; use as a context manager."""

    def __init__(self, directory: Path, transport_url: str, sql_connection: str, **options: Any) -> None:
        self.given = {"transport_url": transport_url, "sql_connection": sql_connection, **QUICK, **options}
        super().__init__(directory, **self.given)
        migration.sync(self.db)
        self.db.run(seed, directory)
        self.daemons: dict[str, Daemon] = {}
        self.schedulers: list[subprocess.Popen[bytes]] = []

    def daemon(self, host: str, **options: Any) -> Daemon:
        """The daemon of a host, made when first asked for; not started."""
        if host not in self.daemons:
            self.daemons[host] = Daemon(self.directory, host, **{**self.given, **options})
        return self.daemons[host]

    def start(self, *hosts: str) -> Site:
        """Start daemons for these hosts."""
        for host in hosts:
            self.daemon(host).start()
        return self

    def scheduler(self, host: str) -> subprocess.Popen[bytes]:
        """A nova-scheduler process; return when it serves."""
        log = self.directory / f"{host}.log"
        command = [sys.executable, "-m", "compute.scheduler_service", "--config-file", str(self.config(host=host))]
        with log.open("ab") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, **run_in_root())
        self.schedulers.append(process)
        eventually(lambda: "nova-scheduler ready" in log.read_text(), 60, f"scheduler {host}")
        return process

    def __exit__(self, *_: object) -> None:
        for process in self.schedulers:
            process.kill()
            process.wait(10)
        for one in self.daemons.values():
            one.__exit__()
        super().__exit__()

    def all_active(self, count: int, timeout_s: float = 60.0) -> Counter[str]:
        """Wait until that many instances are active; how many each host has."""
        eventually(lambda: len(self._active()) == count, timeout_s, f"{count} active")
        return Counter(str(row.host) for row in self._active())

    def _active(self) -> list[Any]:
        from db import instances

        return [row for row in self.db.query(instances.list_all) if row.vm_state == Vm.ACTIVE and not row.task_state]

    def started(self, task: str = "spawning") -> Counter[int]:
        """How often each instance's task was started, by what the daemons logged."""
        found: Counter[int] = Counter()
        for one in self.daemons.values():
            found.update(int(key) for key in re.findall(rf"instance (\d+): {task} started", one.log.read_text()))
        return found

    def config(self, **options: Any) -> Path:
        """A configuration file with this deployment's options, for its command line."""
        path = self.directory / f"{options.get('host', 'site')}-options.conf"
        every = {"state_path": self.directory, "quota_instances": -1, "quota_cores": -1, **self.given, **options}
        path.write_text("[DEFAULT]\n" + "".join(f"{name} = {value}\n" for name, value in every.items()))
        return path

    def manage(self, *words: str) -> list[str]:
        """The command that runs nova-manage on this deployment."""
        return [sys.executable, "-m", "compute.cli", "--config-file", str(self.config()), *words]


def run_in_root(**more: str) -> dict[str, Any]:
    """How to start a program of ours."""
    return {"cwd": ROOT, "env": {**os.environ, **more}}
