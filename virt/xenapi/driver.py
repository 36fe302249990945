"""The xenapi driver: which capability is served by which module."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from oslo_config.cfg import ConfigOpts

from virt import conf as virt_conf
from virt.doors import Doors
from virt.driver import (
    AttachesNics,
    BootsFromVolumes,
    ComputeDriver,
    EmitsEvents,
    HasConsole,
    LiveMigratable,
    Pausable,
    Progress,
    ReportsStats,
    Rescuable,
    Resizable,
    Snapshots,
    Suspendable,
    Told,
    no_progress,
)
from virt.errors import DriverConfigError, GuestStateError, HypervisorUnreachableError, UnsupportedError
from virt.images import ImageCache
from virt.power_state import Power
from virt.spec import (
    BlockStats,
    ConsoleAccess,
    ConsolePool,
    GuestFact,
    GuestInfo,
    HostResources,
    InstanceSpec,
    InterfaceStats,
    SnapshotResult,
    Vif,
    VolumeAttachment,
)
from virt.threads import NativeThreads, Threads
from virt.xenapi import conf as xenapi_conf
from virt.xenapi import console
from virt.xenapi.parts import Parts, Settings
from virt.xenapi.session import Account, Session

LOG = logging.getLogger(__name__)


class XenAPIDriver(
    ComputeDriver, Pausable, Suspendable, Rescuable, Resizable, LiveMigratable, Snapshots, BootsFromVolumes,
    AttachesNics, HasConsole, ReportsStats, EmitsEvents,
):  # fmt: skip
    """Guests on one host of a XenServer or XCP-ng pool. It filters no ports: interfaces are locked to addresses."""

    name = "xenapi"

    def __init__(
        self, session: Session, settings: Settings, images: ImageCache, *, doors: Doors, threads: Threads
    ) -> None:
        self._session, self._settings, self._images = session, settings, images
        self._doors, self._threads = doors, threads
        self._known: Parts | None = None
        self._host_name = ""
        self._entrance = threading.Lock()

    @classmethod
    def from_conf(cls, conf: ConfigOpts, threads: Threads | None = None) -> Self:
        """Read the options of virt/conf.py and virt/xenapi/conf.py; `threads` when those here are green."""
        cls.register(conf)
        _refuse_filters(getattr(conf, "firewall_driver", "noop"))
        instances_path = Path(conf.instances_path)
        session = Session(
            _account(conf),
            login_timeout_s=conf.xenapi_login_timeout,
            call_timeout_s=conf.xenapi_call_timeout,
            poll_s=conf.xenapi_task_poll_interval,
            max_calls=conf.xenapi_max_calls,
        )
        images = ImageCache(
            instances_path / "_base", Path(conf.images_path), max_bytes=conf.max_image_gb * 1024**3,
            timeout_s=conf.image_fetch_timeout,
        )  # fmt: skip
        own = threads or NativeThreads()
        doors = Doors(own, conf.console_address, ttl_s=conf.vnc_token_ttl)
        return cls(session, Settings.from_conf(conf), images, doors=doors, threads=own)

    @staticmethod
    def register(conf: ConfigOpts) -> None:
        """Declare the options; consoles, config drives and unplugging have libvirt's."""
        for options in (virt_conf.OPTS, xenapi_conf.OPTS):
            conf.register_opts(options)

    def init_host(self, host: str) -> None:
        self._host_name = host
        parts = self._parts
        LOG.info("xenapi: %s serves host %s of the pool at %s", host, parts.place.host.name, self._session.url)

    def close(self) -> None:
        self._doors.close()
        if self._known is not None:
            self._known.watcher.stop()
        self._session.close()

    @property
    def _parts(self) -> Parts:
        """The collaborators, which are made once the pool has answered."""
        with self._entrance:
            if self._known is None:
                if not self._host_name:
                    raise HypervisorUnreachableError("the driver has not been told which host it serves")
                self._known = Parts.build(
                    self._session, self._settings, self._host_name, self._images, self._doors, self._threads
                )
            return self._known

    def spawn(self, spec: InstanceSpec, progress: Progress = no_progress) -> None:
        self._parts.builder.spawn(spec, progress)

    def destroy(self, spec: InstanceSpec) -> None:
        self._parts.builder.destroy(spec)

    def reboot(self, spec: InstanceSpec, *, hard: bool = True, timeout_s: float = 60.0) -> None:
        parts = self._parts
        if not hard:
            guest = parts.guests.find(spec)
            if guest.power is Power.RUNNING and parts.power.reboot_softly(guest.ref, timeout_s):
                return
        parts.builder.restart(spec)

    def power_on(self, spec: InstanceSpec) -> None:
        parts = self._parts
        guest = parts.guests.find(spec)
        if guest.power is Power.PAUSED:
            raise GuestStateError(f"guest {spec.name}: is paused, so it cannot be started")
        if guest.power is Power.SUSPENDED:
            parts.power.resume(spec)
        elif guest.power is not Power.RUNNING:
            parts.builder.restart(spec)

    def power_off(self, spec: InstanceSpec, timeout_s: float = 0.0) -> None:
        parts = self._parts
        guest = parts.guests.find(spec)
        if not guest.power.is_on:
            return
        if guest.power is Power.RUNNING and timeout_s > 0 and parts.power.shut_down(guest.ref, timeout_s):
            return
        parts.power.stop(guest.ref)

    def get_info(self, name: str) -> GuestInfo:
        return self._parts.guests.info(name)

    def list_guests(self) -> list[GuestFact]:
        return self._parts.guests.list_guests()

    def host_resources(self) -> HostResources:
        return self._parts.resources.host_resources()

    def get_host_ip_addr(self) -> str | None:
        return self._parts.place.host.address

    def pause(self, spec: InstanceSpec) -> None:
        self._parts.power.pause(spec)

    def unpause(self, spec: InstanceSpec) -> None:
        self._parts.power.unpause(spec)

    def suspend(self, spec: InstanceSpec) -> None:
        self._parts.power.suspend(spec)

    def resume(self, spec: InstanceSpec) -> None:
        self._parts.power.resume(spec)

    def rescue(self, spec: InstanceSpec, rescue: InstanceSpec, progress: Progress = no_progress) -> None:
        self._parts.rescuer.rescue(spec, rescue, progress)

    def unrescue(self, spec: InstanceSpec) -> None:
        self._parts.rescuer.unrescue(spec)

    def migrate_disk_and_power_off(self, spec: InstanceSpec, dest: str, progress: Progress = no_progress) -> str:
        return self._parts.resizer.migrate_disk_and_power_off(spec, dest, progress)

    def finish_resize(self, spec: InstanceSpec, disk_info: str, progress: Progress = no_progress) -> None:
        self._parts.resizer.finish_resize(spec, disk_info, progress)

    def confirm_resize(self, spec: InstanceSpec) -> None:
        self._parts.resizer.confirm_resize(spec)

    def revert_resize(self, spec: InstanceSpec) -> None:
        self._parts.resizer.revert_resize(spec)

    def compare_cpu(self, cpu_info: str) -> None:
        self._parts.migrator.compare_cpu(self.host_resources().cpu_info, cpu_info)

    def pre_live_migration(self, spec: InstanceSpec) -> None:
        self._parts.migrator.prepare(spec)

    def live_migration(self, spec: InstanceSpec, dest: str, progress: Progress = no_progress) -> None:
        self._parts.migrator.live_migration(spec, dest, progress)

    def cleanup_live_migration(self, spec: InstanceSpec) -> None:
        self._parts.migrator.cleanup(spec)

    def snapshot(self, spec: InstanceSpec, path: str, progress: Progress = no_progress) -> SnapshotResult:
        return self._parts.snapshotter.snapshot(spec, Path(path), progress)

    def attach_volume(self, spec: InstanceSpec, volume: VolumeAttachment) -> None:
        self._parts.volumes.attach(spec, volume)

    def detach_volume(self, spec: InstanceSpec, volume: VolumeAttachment) -> None:
        self._parts.volumes.detach(spec, volume)

    def attach_nic(self, spec: InstanceSpec, vif: Vif) -> None:
        self._parts.nics.attach(spec, vif)

    def detach_nic(self, spec: InstanceSpec, vif: Vif) -> None:
        self._parts.nics.detach(spec, vif)

    def get_console_output(self, spec: InstanceSpec, max_bytes: int = 65536) -> str:
        return self._parts.consoles.output(spec, max_bytes)

    def get_ajax_console(self, spec: InstanceSpec) -> ConsoleAccess:
        return self._parts.consoles.door(spec, console.TEXT)

    def get_vnc_console(self, spec: InstanceSpec) -> ConsoleAccess:
        return self._parts.consoles.door(spec, console.SCREEN)

    def get_console_pool_info(self, console_type: str) -> ConsolePool:  # noqa: ARG002 - one way in for every type
        """A proxy needs no account: each console has its own one-time token."""
        return ConsolePool(address=self._doors.address, username="", password="")

    def get_diagnostics(self, spec: InstanceSpec) -> dict[str, int]:
        return self._parts.stats.diagnostics(spec)

    def list_disks(self, name: str) -> list[str]:
        return self._parts.stats.disks(name)

    def list_interfaces(self, name: str) -> list[str]:
        return self._parts.stats.interfaces(name)

    def block_stats(self, name: str, disk_id: str) -> BlockStats:
        """Not to be had: xapi measures rates (see `get_diagnostics`) and counts nothing."""
        raise UnsupportedError(f"guest {name}: xapi counts nothing of disk {disk_id}; diagnostics have its rates")

    def interface_stats(self, name: str, interface_id: str) -> InterfaceStats:
        """Not to be had: xapi measures rates (see `get_diagnostics`) and counts nothing."""
        raise UnsupportedError(
            f"guest {name}: xapi counts nothing of interface {interface_id}; diagnostics have its rates"
        )

    def watch(self, told: Told) -> None:
        self._parts.watcher.watch(told)


def _refuse_filters(firewall_driver: str) -> None:
    if firewall_driver != "noop":
        raise DriverConfigError(
            f"firewall_driver = {firewall_driver}: the xenapi driver does not filter ports; with noop, guests are "
            "locked to their addresses, and nothing else"
        )


def _account(conf: ConfigOpts) -> Account:
    url = (conf.xenapi_connection_url or "").rstrip("/")
    for option in ("xenapi_connection_url", "xenapi_connection_password"):
        if not conf[option]:
            raise DriverConfigError(f"{option}: not set, and compute_driver = xenapi needs it")
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.path:
        raise DriverConfigError(f"xenapi_connection_url = {url}: not of the form https://HOST[:PORT]")
    return Account(
        url=url, username=conf.xenapi_connection_username, password=conf.xenapi_connection_password,
        ca_file=conf.xenapi_ca_file,
    )  # fmt: skip
