"""The libvirt driver for machines: which capability is served by which module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from oslo_config.cfg import ConfigOpts

from virt.doors import Doors
from virt.driver import (
    AttachesNics,
    AuditsFiles,
    BootsFromVolumes,
    CachesImages,
    ComputeDriver,
    EmitsEvents,
    FiltersTraffic,
    HasConsole,
    InjectsGuest,
    LiveMigratable,
    Pausable,
    Progress,
    ReportsStats,
    ReportsUsage,
    Rescuable,
    Resizable,
    SharesStorage,
    Snapshots,
    Suspendable,
    no_progress,
)
from virt.errors import GuestStateError
from virt.firewall.base import FirewallDriver
from virt.libvirt import console, power
from virt.libvirt import rescue as rescuing
from virt.libvirt.agent import Agents
from virt.libvirt.build import Builder
from virt.libvirt.domain import Platform, rescue_domain_for
from virt.libvirt.guests import LibvirtGuests
from virt.libvirt.host import Host
from virt.libvirt.migration import Manner
from virt.libvirt.moves import Moves
from virt.libvirt.peer import Peers
from virt.libvirt.settings import manner_of
from virt.libvirt.snapshots import Snapshotter
from virt.libvirt.usage import Usage
from virt.network.networks import Networks
from virt.power_state import Power
from virt.spec import ConsoleAccess, GuestUsage, InstanceSpec, SnapshotResult, VolumeAttachment


class LibvirtDriver(
    LibvirtGuests, Moves, ComputeDriver, Pausable, Suspendable, Rescuable, Resizable, LiveMigratable,
    SharesStorage, Snapshots, BootsFromVolumes, AttachesNics, HasConsole, InjectsGuest, FiltersTraffic, ReportsStats,
    ReportsUsage, EmitsEvents, CachesImages, AuditsFiles,
):  # fmt: skip
    """Machines of one libvirt."""

    def __init__(
        self,
        host: Host,
        platform: Platform,
        builder: Builder,
        *,
        networks: Networks,
        firewall: FirewallDriver,
        doors: Doors | None = None,
        agents: Agents | None = None,
        unplug_timeout_s: float = 60.0,
        peers: Peers | None = None,
        manner: Manner | None = None,
    ) -> None:
        super().__init__(
            host, platform, builder,
            networks=networks, firewall=firewall, doors=doors, unplug_timeout_s=unplug_timeout_s,
        )  # fmt: skip
        self._agents = agents or Agents(host, platform.cluster)
        self._snapshots = Snapshotter(self._domains, builder, self._agents)
        self._usage = Usage(host, self._domains)
        self._be_able_to_move(peers, manner)

    @classmethod
    def _more_from_conf(cls, conf: ConfigOpts, host: Host) -> dict[str, Any]:
        return {
            "agents": Agents(host, conf.cluster_id, timeout_s=conf.guest_agent_timeout),
            "peers": Peers(conf.live_migration_uri, host.calls.threads),
            "manner": manner_of(conf),
        }

    def _settle(self, host: str) -> None:
        self._settle_moves(host)

    def close(self) -> None:
        self._agents.close()
        self._usage.close()
        super().close()

    def suspend(self, spec: InstanceSpec) -> None:
        power.suspend(self._domains, spec)

    def resume(self, spec: InstanceSpec) -> None:
        self._volumes.prepare(spec)
        self._networks.plug(spec)
        self._firewall.prepare_instance_filter(spec)
        power.resume(self._domains, spec)
        self._firewall.apply_instance_filter(spec)

    def rescue(self, spec: InstanceSpec, rescue: InstanceSpec, progress: Progress = no_progress) -> None:
        self._prepared(replace(spec, volumes=spec.root_volumes))  # no other: they may be what is broken
        layout = self._builder.layout(spec.name)
        boot = rescue_domain_for(self._firewall.behind_filters(spec), rescue, layout, self._platform).xml()
        rescuing.rescue(self._domains, self._builder, spec, rescue, boot, self._xml(spec, layout), progress)
        self._firewall.apply_instance_filter(spec)

    def unrescue(self, spec: InstanceSpec) -> None:
        rescuing.unrescue(self._domains, self._builder, spec, self._prepared(spec))
        self._firewall.apply_instance_filter(spec)

    def snapshot(self, spec: InstanceSpec, path: str, progress: Progress = no_progress) -> SnapshotResult:
        return self._snapshots.snapshot(spec, Path(path), progress)

    def attach_volume(self, spec: InstanceSpec, volume: VolumeAttachment) -> None:
        self._volumes.attach(spec, volume)

    def detach_volume(self, spec: InstanceSpec, volume: VolumeAttachment) -> None:
        self._volumes.detach(spec, volume)

    def get_ajax_console(self, spec: InstanceSpec) -> ConsoleAccess:
        return console.serial_door(self._domains, self._doors, spec)

    def get_vnc_console(self, spec: InstanceSpec) -> ConsoleAccess:
        if self._platform.vnc_listen is None:
            raise GuestStateError(f"guest {spec.name}: vnc_enabled is off on this host")
        return console.screen_door(self._domains, self._doors, spec)

    def set_admin_password(self, spec: InstanceSpec, new_pass: str) -> None:
        self._demand_running(spec)
        self._agents.set_password(spec, new_pass)

    def inject_file(self, spec: InstanceSpec, path: str, contents: bytes) -> None:
        self._demand_running(spec)
        self._agents.write_file(spec, path, contents)

    def reset_network(self, spec: InstanceSpec) -> None:
        self._demand_running(spec)
        self._agents.reset_network(spec)

    def inject_network_info(self, spec: InstanceSpec) -> None:
        """The config drive has the facts from the guest's next start on; a running guest gets them from its agent."""
        is_on = self._domains.power(spec)
        if is_on is not Power.SUSPENDED:
            self._tell(spec)
        if is_on in power.RUNS:
            self._agents.hand_over_network(spec)

    def usage(self) -> Sequence[GuestUsage]:
        return self._usage.read()

    def _demand_running(self, spec: InstanceSpec) -> None:
        now = self._domains.power(spec)
        if now not in power.RUNS:
            raise GuestStateError(f"guest {spec.name}: is {now.name}, so no agent answers in it")
