"""nova-scheduler: places instances for clients that cast to topic `scheduler`. Any number of them may run.

It keeps nothing: what waits for a host is in the journal, and whichever scheduler looks first places it.
"""

from __future__ import annotations

import logging
import sys
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from compute import __version__, concurrency, process

if TYPE_CHECKING:
    from oslo_config.cfg import ConfigOpts

    from compute.api import API
    from compute.placing import Placing
    from compute.rpcapi import ComputeRPC
    from compute.scheduler import Scheduler
    from compute.sealing import Sealer
    from db.session import Database, Tx

LOG = logging.getLogger(__name__)
BINARY = "nova-scheduler"


class SchedulerService:
    """One scheduler daemon."""

    _db: Database

    def __init__(self, conf: ConfigOpts) -> None:
        self._conf = conf
        self._stop_asked = concurrency.StopSignal()
        self._open = ExitStack()
        self._owner = str(uuid.uuid4())
        self._service_id = 0
        self.exit_status = 0

    def __str__(self) -> str:
        return f"host={self._conf.host} driver={self._conf.scheduler_driver}"

    def start(self) -> None:
        """Begin to serve; on any error everything that was begun is ended again and the error raised."""
        with ExitStack() as opened:
            opened.callback(self._stop_asked.close)
            self._start(opened)
            self._open = opened.pop_all()

    def _start(self, opened: ExitStack) -> None:
        from compute.messaging.transport import Bus, check_reachable
        from compute.placing import Placing
        from compute.rpcapi import ComputeRPC
        from compute.scheduler_manager import VERSION, SchedulerManager
        from compute.sealing import Sealer
        from compute.service import build_scheduler, open_database
        from db import migration

        conf = self._conf
        concurrency.check(conf)
        self._db = open_database(conf)
        opened.callback(self._db.dispose)
        migration.check(self._db)
        check_reachable(conf.transport_url, conf.broker_timeout)
        bus = Bus(conf)
        opened.callback(bus.close)
        rpc = ComputeRPC(bus.client, topic=conf.compute_topic, scheduler_topic=conf.scheduler_topic)
        scheduler, sealer = build_scheduler(conf), Sealer(conf.seal_key_file)
        placing = Placing(self._db, scheduler, sealer, rpc, wait_s=conf.scheduler_wait)
        manager = SchedulerManager(self._api(scheduler, sealer, rpc), placing, conf.compute_topic)
        self._register()
        opened.callback(self._sign_off)
        placing.redrive()
        server = bus.server(conf.scheduler_topic, conf.host, manager, VERSION)
        server.start()
        opened.callback(server.wait)
        opened.callback(server.stop)
        self._start_timers(opened, placing)

    def _api(self, scheduler: Scheduler, sealer: Sealer, rpc: ComputeRPC) -> API:
        """The API whose creates are placed here and now, whatever scheduler_mode says to others."""
        from compute.api import API
        from compute.create import Limits
        from compute.reads import Reads

        return API(
            self._db,
            reads=Reads(self._db, instance_name_template=self._conf.instance_name_template),
            scheduler=scheduler,
            sealer=sealer,
            rpc=rpc,
            limits=replace(Limits.from_conf(self._conf), scheduler_mode="inprocess"),
            close=lambda: None,
        )

    def _start_timers(self, opened: ExitStack, placing: Placing) -> None:
        from compute.timers import Timer

        interval_s = self._conf.redrive_interval
        for timer in (
            Timer("heartbeat", self._conf.report_interval, self._heartbeat),
            Timer("re-drive", interval_s, lambda: placing.redrive(interval_s)),
        ):
            timer.start()
            opened.callback(timer.stop)

    def _register(self) -> None:
        from db import services
        from db.errors import DuplicateRowError

        conf = self._conf
        new = {"host": conf.host, "binary": BINARY, "topic": conf.scheduler_topic}

        def write(tx: Tx) -> int:
            row = services.find(tx, conf.host, BINARY)
            zone = {"availability_zone": conf.node_availability_zone}
            service_id = services.create(tx, {**new, **zone, "disabled": False}) if row is None else row.id
            services.take_over(tx, service_id, self._owner, version=__version__)
            return service_id

        try:
            self._service_id = self._db.run(write)
        except DuplicateRowError:  # another one of this host was first; now its row is there
            self._service_id = self._db.run(write)

    def _heartbeat(self) -> None:
        """Say that a scheduler of this host is alive, in a new row if the old one was removed."""
        from db import services

        if not self._db.run(services.heartbeat, self._service_id, self._owner):
            self._register()

    def _sign_off(self) -> None:
        from db import services

        self._db.run(services.sign_off, self._service_id, self._owner)

    def shut_down(self) -> None:
        """Ask for a stop from any thread or signal handler; `wait` returns."""
        self._stop_asked.set()

    def wait(self) -> None:
        """Block until `shut_down`."""
        self._stop_asked.wait()

    def stop(self) -> None:
        """End in order: timers, RPC server with what it is answering, registration, connections."""
        self._open.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon until SIGTERM or SIGINT; 1 and one line on standard error when it cannot start."""
    return process.run("nova-scheduler", argv, SchedulerService)


if __name__ == "__main__":
    sys.exit(main())
