"""nova-compute: the composition root. Configuration to database, driver, manager, RPC server and timers.

Start order: identity, database revision, driver, recovery of what was found half done, RPC server, timers. Nothing is
written before the host is this daemon's, and no message is taken before recovery has looked.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from compute import concurrency, process
from compute.errors import ConfigError

if TYPE_CHECKING:  # imported when they are needed: the executor must be chosen first, and start-up is short
    from oslo_config.cfg import ConfigOpts

    from compute.api import API
    from compute.context import RequestContext
    from compute.host import Host
    from compute.manager import ComputeManager
    from compute.messaging.transport import Bus
    from compute.recovery import Recovery
    from compute.rpcapi import ComputeRPC
    from compute.scheduler import Scheduler
    from compute.sealing import Sealer
    from compute.settings import Settings
    from compute.sync import PowerSync
    from db.actions import Action
    from db.session import Database
    from virt.driver import ComputeDriver

LOG = logging.getLogger("compute.service")
RECOVERED_AT_A_TIME = 16
STRAGGLERS_WAIT_S = 2.0


class Service:
    """One compute daemon. `start` returns when it consumes; `stop` finishes or hands back what runs."""

    host: Host  # this and the next three are there once it has started
    manager: ComputeManager
    sync: PowerSync
    recovery: Recovery

    def __init__(self, conf: ConfigOpts, *, driver: ComputeDriver | None = None) -> None:
        """driver: used instead of the one that compute_driver names (simulations of many hosts in one process)."""
        self._conf = conf
        self._given_driver = driver
        self._stop_asked = concurrency.StopSignal()
        self.exit_status = 0
        self._undo: list[Callable[[], object]] = []

    def start(self) -> None:
        """Begin to serve; on any error everything that was begun is ended again and the error raised."""
        try:
            self._start()
        except BaseException:
            self._close()
            raise

    def _start(self) -> None:
        from compute.identity import Identity
        from compute.messaging.transport import Bus, check_reachable
        from compute.sealing import Sealer
        from compute.settings import Settings
        from db import migration, services
        from virt.connection import get_connection
        from virt.driver import FiltersTraffic
        from virt.firewall import base as firewall

        conf = self._conf
        concurrency.check(conf)
        firewall.find(conf.firewall_driver)  # before anything is made
        settings = Settings.from_conf(conf)
        db = open_database(conf)
        self._undo.append(db.dispose)
        migration.check(db)
        check_reachable(conf.transport_url, conf.broker_timeout)
        driver = self._given_driver or get_connection(conf, concurrency.driver_threads())
        self._undo.append(driver.close)
        if conf.firewall_driver != firewall.NONE and not isinstance(driver, FiltersTraffic):
            # a filter that was asked for and is not there is no filter
            raise ConfigError(f"firewall_driver = {conf.firewall_driver}: compute_driver {driver.name} filters nothing")
        identity = Identity(conf.state_path, conf.host)
        self._undo.append(identity.release)
        service_id = identity.acquire(
            db,
            topic=conf.compute_topic,
            zone=conf.node_availability_zone,
            enabled=conf.enable_new_services,
            report_interval_s=conf.report_interval,
            down_time_s=conf.service_down_time,
        )
        self._undo.append(lambda: db.run(services.sign_off, service_id, identity.owner))
        self._undo.append(driver.close)  # again: what it holds of the host goes before the host is another's
        driver.init_host(conf.host)
        bus = Bus(conf)
        self._undo.append(bus.close)
        self._assemble(settings, db, driver, bus, Sealer(conf.seal_key_file), identity.owner, service_id)
        self._begin(bus)

    def _assemble(
        self, settings: Settings, db: Database, driver: ComputeDriver, bus: Bus, sealer: Sealer, owner: str,
        service_id: int,
    ) -> None:  # fmt: skip
        from compute.host import Host
        from compute.lanes import Lane
        from compute.manager import ComputeManager
        from compute.ops.filters import Filters, tell_of
        from compute.recovery import Recovery
        from compute.refreshing import Refreshing
        from compute.rpcapi import ComputeRPC
        from compute.specs import SpecBuilder
        from compute.sync import PowerSync
        from compute.task import Tasks
        from compute.volume import Maker
        from virt.firewall.base import NONE
        from virt.network.mode import NetworkMode

        mode = NetworkMode.from_conf(self._conf)
        specs = SpecBuilder(name_template=self._conf.instance_name_template, sealer=sealer, networks=mode)
        rpc = ComputeRPC(bus.client, topic=self._conf.compute_topic, scheduler_topic=self._conf.scheduler_topic)
        is_filtered = self._conf.firewall_driver != NONE
        tasks = Tasks(
            db=db, driver=driver, specs=specs, sealer=sealer, host=settings.host, owner=owner, with_groups=is_filtered,
            passed_on=lambda action: self._pass_on(rpc, action), ended=partial(tell_of, Refreshing(db, rpc)),
        )  # fmt: skip
        self.host = Host(
            db=db,
            driver=driver,
            tasks=tasks,
            specs=specs,
            sealer=sealer,
            scheduler=build_scheduler(self._conf),
            rpc=rpc,
            settings=settings,
            service_id=service_id,
            maker=Maker.from_conf(self._conf),
            builds=Lane("build", settings.max_concurrent_builds),
            migrations=Lane("migration", settings.max_concurrent_migrations),
            snapshots=Lane("snapshot", settings.max_concurrent_snapshots),
            filters=Filters(db, driver, specs, settings.host, enabled=is_filtered),
        )
        self._redriven = Lane("re-drive", self._conf.rpc_thread_pool_size)
        self._settled = Lane("recovery", RECOVERED_AT_A_TIME)
        self.manager = ComputeManager(self.host)
        self.recovery = Recovery(self.host, self._ring_here, self._settled)
        self.sync = PowerSync(self.host)

    def _begin(self, bus: Bus) -> None:
        from compute.host_boot import HostBoot
        from compute.periodic import Periodic
        from compute.rpcapi import VERSION
        from compute.timers import Timer

        conf, host = self._conf, self.host
        host.filters.repair()
        host.report_resources()
        HostBoot(host, conf.state_path, enabled=conf.start_guests_on_host_boot).run()
        self.recovery.run()
        server = bus.server(conf.compute_topic, conf.host, self.manager, VERSION)
        server.start()
        self._undo.append(self._redriven.close)
        self._undo.append(lambda: _within(STRAGGLERS_WAIT_S, server.wait))
        self._undo.append(self._finish_operations)
        self._undo.append(server.stop)
        self._undo.extend(lane.close for lane in (host.builds, host.migrations, host.snapshots, self._settled))
        periodic = Periodic(host, self.recovery, self.sync, self._host_lost)
        loopback = bus.loopback(server, conf.compute_topic, conf.host, VERSION, self._fail)
        timers = periodic.timers(conf.report_interval, conf.redrive_interval, conf.periodic_interval)
        timers += periodic.upkeep(conf.image_cache_interval, conf.filter_audit_interval)
        self._listen_and_tell()
        for timer in (*timers, Timer("loopback", conf.report_interval, loopback.check)):
            timer.start()
            self._undo.append(timer.stop)

    def _listen_and_tell(self) -> None:
        """Hear what happens to guests and their filters, and answer who asks for metrics."""
        from compute.events import Events
        from compute.filter_watch import FilterWatch
        from virt.driver import EmitsEvents

        if self._conf.lifecycle_events and isinstance(self.host.driver, EmitsEvents):
            events = Events(self.host.driver, self.sync)
            events.start()
            self._undo.append(events.stop)
        if self._conf.filter_audit_interval and self.host.filters.enabled:
            watch = FilterWatch(self.host.filters.repair)
            watch.start()
            self._undo.append(watch.stop)
        if self._conf.metrics_listen:
            from compute.metrics_server import Exporter, MetricsServer

            self._undo.append(MetricsServer(self._conf.metrics_listen, Exporter(self.host)).close)

    def _fail(self) -> None:
        """Stop, for the supervisor to start another one."""
        self.exit_status = 1
        self.shut_down()

    def _pass_on(self, rpc: ComputeRPC, action: Action) -> None:
        """Ring for the next leg of an order, here or elsewhere."""
        from compute import orders

        if action.host == self._conf.host:
            self._ring_here(action)
        elif not rpc.ring(_context_of(action), orders.bell(self.host.sealer, action)):
            LOG.warning("instance %d: %s cannot be told now; it will look", action.instance_id, action.host)

    def _ring_here(self, action: Action) -> None:
        """Do a requested order of this host as if its message had come."""
        from compute import orders
        from compute.host_boot import ON_HOST_BOOT
        from compute.rpcapi import MESSAGE_ARGS

        verb = getattr(self.manager, action.step)
        given = orders.unpack(self.host.sealer, action.args)
        named = {name: given[name] for name in MESSAGE_ARGS.get(action.step, ()) if name in given}
        args = {**named, "instance_id": action.instance_id, "action_id": action.id}
        key = (action.id, action.attempt)
        lane = self.host.builds if given.get(ON_HOST_BOOT) else self._redriven
        lane.submit(key, self.host.guarded(lambda: verb(_context_of(action), **args)))

    def _finish_operations(self) -> None:
        """Let what runs end; what does not in time stops at its next step, and the next start decides about it."""
        until = time.monotonic() + self._conf.graceful_stop_timeout
        for job in self.host.tasks.running():
            if not job.left.wait(max(0.0, until - time.monotonic())):
                LOG.warning("instance %d: %s is left to the next start", job.instance.id, job.task)
        self.host.tasks.stop()

    def _host_lost(self) -> None:
        """Another start owns the host: end at once, and leave to it whatever runs here."""
        self.exit_status = 1
        self.host.tasks.stop()
        self.shut_down()

    def shut_down(self) -> None:
        """Ask for a stop from any thread or signal handler; `wait` returns."""
        self._stop_asked.set()

    def wait(self) -> None:
        """Block until `shut_down`."""
        self._stop_asked.wait()

    def __str__(self) -> str:
        return f"host={self._conf.host} driver={self._conf.compute_driver}"

    def stop(self) -> None:
        """End in order: timers, lanes, RPC server, running operations, registration, connections."""
        self._stop_asked.set()
        self._close()

    def _close(self) -> None:
        while self._undo:
            step = self._undo.pop()
            try:
                step()
            except Exception:  # a stop goes on whatever one of its steps says
                LOG.exception("while stopping")
        self._stop_asked.close()


def _within(timeout_s: float, step: Callable[[], object]) -> None:
    """Do `step`, but wait no longer for it than that: a verb may hang in its hypervisor for ever."""

    def run() -> None:
        try:
            step()
        except Exception:  # it came after the connections were closed
            LOG.debug("a straggler ended", exc_info=True)

    thread = threading.Thread(target=run, name="stragglers", daemon=True)
    thread.start()
    thread.join(timeout_s)


def _context_of(action: Action) -> RequestContext:
    from compute.recovery import context_of

    return context_of(action)


def open_database(conf: ConfigOpts) -> Database:
    """The database that sql_connection names; not connected yet."""
    from db.session import Database

    return Database(
        conf.sql_connection,
        sqlite_synchronous=conf.sqlite_synchronous,
        max_retries=conf.sql_max_retries,
        retry_interval_s=conf.sql_retry_interval,
        idle_timeout_s=conf.sql_idle_timeout,
        pool_size=conf.sql_pool_size,
    )


def build_scheduler(conf: ConfigOpts) -> Scheduler:
    """The scheduler that the flags describe."""
    from compute.scheduler import Scheduler
    from compute.scheduler_conf import settings
    from compute.scheduling.drivers import load_driver

    return Scheduler(
        load_driver(conf.scheduler_driver, settings(conf)),
        service_down_time_s=conf.service_down_time,
        candidates_ttl_s=conf.scheduler_candidates_ttl,
    )


def build_api(conf: ConfigOpts) -> API:
    """The API over this configuration; it opens the bus when it first needs it."""
    from compute.api import API

    return API.from_conf(conf, open_database(conf), build_scheduler(conf))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon until SIGTERM or SIGINT; 1 and one line on standard error when it cannot start."""
    return process.run("nova-compute", argv, Service)


if __name__ == "__main__":
    sys.exit(main())
