"""Put the driver's collaborators together, once the pool has said which of its objects they work on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from oslo_config.cfg import ConfigOpts

from virt.doors import Doors
from virt.errors import DriverConfigError
from virt.images import ImageCache
from virt.threads import Threads
from virt.xenapi.build import Builder
from virt.xenapi.console import Consoles
from virt.xenapi.disks import Disks
from virt.xenapi.events import Watcher
from virt.xenapi.guests import Guests
from virt.xenapi.machines import Machines
from virt.xenapi.migration import Migrator
from virt.xenapi.networks import Networks
from virt.xenapi.nics import Nics
from virt.xenapi.pool import Place, Pool
from virt.xenapi.power import PowerSwitch
from virt.xenapi.rescue import Rescuer
from virt.xenapi.resize import Resizer
from virt.xenapi.resources import Resources
from virt.xenapi.session import Session
from virt.xenapi.snapshots import Snapshotter
from virt.xenapi.stamps import Stamp
from virt.xenapi.stats import Stats
from virt.xenapi.transfer import Transfers
from virt.xenapi.volumes import Volumes
from virt.xenapi.wiring import Wiring


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the options say; names and units are theirs."""

    cluster_id: str
    instances_path: Path
    host: str = ""
    sr: str = ""
    template: str = "Other install media"
    force_config_drive: bool = True
    task_s: float = 1200.0
    transfer_s: float = 14400.0
    listing_s: float = 600.0
    unplug_s: float = 60.0
    max_vhd_chain: int = 20
    coalesce_poll_s: float = 5.0
    coalesce_looks: int = 5

    @classmethod
    def from_conf(cls, conf: ConfigOpts) -> Self:
        """Read them."""
        return cls(
            cluster_id=conf.cluster_id,
            instances_path=Path(conf.instances_path),
            host=conf.xenapi_host,
            sr=conf.xenapi_sr,
            template=conf.xenapi_template,
            force_config_drive=conf.force_config_drive,
            task_s=conf.xenapi_task_timeout,
            transfer_s=conf.xenapi_transfer_timeout,
            listing_s=conf.xenapi_listing_interval,
            unplug_s=conf.device_unplug_timeout,
            max_vhd_chain=conf.xenapi_max_vhd_chain,
            coalesce_poll_s=conf.xenapi_vhd_coalesce_poll_interval,
            coalesce_looks=conf.xenapi_vhd_coalesce_max_attempts,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The collaborators, each for one family of things that the driver does."""

    place: Place
    guests: Guests
    power: PowerSwitch
    builder: Builder
    rescuer: Rescuer
    resizer: Resizer
    migrator: Migrator
    snapshotter: Snapshotter
    volumes: Volumes
    nics: Nics
    consoles: Consoles
    resources: Resources
    stats: Stats
    watcher: Watcher

    @classmethod
    def build(
        cls, session: Session, settings: Settings, daemon: str, images: ImageCache, doors: Doors, threads: Threads
    ) -> Self:
        """Look up what the options name and build on it. Raises DriverConfigError, HypervisorUnreachableError."""
        pool = Pool(session, settings.cluster_id)
        place = pool.settle(daemon, host=settings.host, sr=settings.sr, template=settings.template)
        stamp = Stamp(settings.cluster_id, place.host.uuid)
        guests = Guests(session, stamp, place.host.ref, listing_s=settings.listing_s)
        networks = Networks(session)
        wiring = Wiring(session, networks)
        power = PowerSwitch(session, guests, task_s=settings.task_s)
        transfers = Transfers(session, timeout_s=settings.transfer_s)
        volumes = Volumes(session, guests, pool, wiring, unplug_s=settings.unplug_s)
        disks = Disks(session, stamp, place.sr, transfers, images, _made(settings.instances_path))
        builder = Builder(
            session, guests=guests, disks=disks, wiring=wiring, volumes=volumes, power=power, networks=networks,
            machines=Machines(session, guests, pool, place, template=settings.template, task_s=settings.task_s),
            force_config_drive=settings.force_config_drive,
        )  # fmt: skip
        return cls(
            place=place, guests=guests, power=power, builder=builder, rescuer=Rescuer(builder), volumes=volumes,
            resizer=Resizer(session, builder, pool, place, copy_s=settings.transfer_s),
            migrator=Migrator(session, builder, pool, place, move_s=settings.transfer_s),
            snapshotter=Snapshotter(
                session, guests, disks, transfers, most=settings.max_vhd_chain, poll_s=settings.coalesce_poll_s,
                looks=settings.coalesce_looks,
            ),
            nics=Nics(session, guests, wiring, networks, unplug_s=settings.unplug_s),
            consoles=Consoles(session, guests, doors, threads),
            resources=Resources(session, guests, place),
            stats=Stats(session, guests, wiring),
            watcher=Watcher(session, guests),
        )  # fmt: skip


def _made(path: Path) -> Path:
    try:
        path.mkdir(mode=0o711, parents=True, exist_ok=True)
    except OSError as exc:
        raise DriverConfigError(f"instances_path: {path}: {exc.strerror}") from exc
    return path
