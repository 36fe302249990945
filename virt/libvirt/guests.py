"""What machines and containers on libvirt have in common; what each can do, the headers of their classes say."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, ClassVar, Self

from oslo_config.cfg import ConfigOpts

from virt import conf as virt_conf
from virt.disk import Disks
from virt.doors import Doors
from virt.driver import ComputeDriver, Progress, no_progress
from virt.errors import DiskError, DriverConfigError, GuestExistsError, VirtError
from virt.firewall import conf as firewall_conf
from virt.firewall.base import FirewallDriver
from virt.firewall.latest import LatestFirewall
from virt.images import ImageCache
from virt.libvirt import conf as libvirt_conf
from virt.libvirt import console, power
from virt.libvirt.build import CACHE, Builder
from virt.libvirt.devices import Devices
from virt.libvirt.domain import Platform, domain_for
from virt.libvirt.domains import Domains
from virt.libvirt.filtering import Filtering
from virt.libvirt.guest_type import check_type, real_type
from virt.libvirt.host import Host
from virt.libvirt.layout import Layout
from virt.libvirt.nics import Nics
from virt.libvirt.nwfilters import NWFilters
from virt.libvirt.resources import HostFacts, host_facts, host_resources
from virt.libvirt.secrets import Secrets
from virt.libvirt.settings import absolute, host_of, platform_of
from virt.libvirt.stats import Stats
from virt.libvirt.upkeep import Upkeep
from virt.libvirt.volumes import Volumes
from virt.network.networks import Networks
from virt.power_state import Power
from virt.spec import BlockStats, ConsolePool, GuestFact, GuestInfo, HostResources, InstanceSpec, InterfaceStats, Vif
from virt.threads import Threads

LOG = logging.getLogger(__name__)


class LibvirtGuests(ComputeDriver, Filtering, Upkeep):
    """Guests of one libvirt. Everything it uses is handed in; `platform.arch` may be left for libvirt to tell."""

    name = "libvirt"
    builder_type: ClassVar[type[Builder]] = Builder
    domains_type: ClassVar[type[Domains]] = Domains
    stats_type: ClassVar[type[Stats]] = Stats

    def __init__(
        self,
        host: Host,
        platform: Platform,
        builder: Builder,
        *,
        networks: Networks,
        firewall: FirewallDriver,
        doors: Doors | None = None,
        unplug_timeout_s: float = 60.0,
    ) -> None:
        self._host, self._platform, self._builder = host, platform, builder
        self._networks, self._firewall = networks, firewall
        self._domains, self._stats = self.domains_type(host, platform.cluster), self.stats_type(host)
        self._doors = doors or Doors(host.calls.threads)
        devices = Devices(self._domains, unplug_timeout_s=unplug_timeout_s)
        self._volumes = Volumes(self._domains, devices, Secrets(host), cache=platform.disk_cache)
        self._nics = Nics(devices, networks, firewall)
        self._facts: HostFacts | None = None
        self._look_after(host, self._domains, builder)

    @classmethod
    def from_conf(cls, conf: ConfigOpts, threads: Threads | None = None) -> Self:
        """Read the options of virt/conf.py and virt/libvirt/conf.py; `threads` when those here are green."""
        conf.register_opts(virt_conf.OPTS)
        conf.register_opts(libvirt_conf.OPTS)
        conf.register_opts(firewall_conf.OPTS)
        instances_path = absolute(conf, "instances_path")
        images = ImageCache(
            instances_path / CACHE,
            absolute(conf, "images_path"),
            max_bytes=conf.max_image_gb * 1024**3,
            max_plain_bytes=conf.max_kernel_mb * 1024**2,
            timeout_s=conf.image_fetch_timeout,
        )
        host = host_of(conf, threads)
        disks, raw = Disks(qemu_img=conf.qemu_img), conf.libvirt_type == "uml"
        return cls(
            host,
            platform_of(conf),
            cls.builder_type(instances_path, images, disks, cow=conf.use_cow_images, raw=raw),
            networks=Networks.from_conf(conf),
            firewall=LatestFirewall.from_conf(conf, NWFilters(host, change_timeout_s=conf.nwfilter_timeout)),
            doors=Doors(host.calls.threads, conf.console_address, ttl_s=conf.vnc_token_ttl),
            unplug_timeout_s=conf.device_unplug_timeout,
            **cls._more_from_conf(conf, host),
        )

    @classmethod
    def _more_from_conf(cls, conf: ConfigOpts, host: Host) -> dict[str, Any]:  # noqa: ARG003 - what others need
        """What only this kind of guest needs: arguments by name."""
        return {}

    def init_host(self, host: str) -> None:
        try:
            self._builder.prepare()
        except DiskError as exc:
            raise DriverConfigError(f"instances_path: {exc}") from exc
        self._facts = host_facts(self._host)
        self._platform = replace(self._platform, type=real_type(self._platform.type), arch=self._facts.arch)
        check_type(self._platform, self._facts.hypervisor_type)
        self._settle(host)
        self._firewall.init_host()
        self._networks.restore({guest.uuid for guest in self._domains.list_guests() if guest.uuid is not None})
        LOG.info("libvirt: %s serves guests of type %s for %s", self._host.uri, self._platform.type, host)

    def _settle(self, host: str) -> None:
        """End what an earlier daemon of this host left behind, where there can be such a thing."""

    def close(self) -> None:
        self._doors.close()
        self._look_away()
        self._host.close()

    def tend(self) -> None:
        self._networks.tend()

    def spawn(self, spec: InstanceSpec, progress: Progress = no_progress) -> None:
        progress("looking for leftovers")
        self._clear_the_place(spec)
        with ExitStack() as undo:
            undo.callback(self._take_back, spec)
            self._volumes.prepare(spec)
            progress("preparing networks")
            self._networks.plug(spec)
            layout = self._builder.make(spec, progress)
            self._tell(spec)
            progress("filtering")
            self._firewall.setup_basic_filtering(spec)
            self._firewall.prepare_instance_filter(spec)
            progress("starting")
            self._domains.boot(spec, self._xml(spec, layout))
            self._firewall.apply_instance_filter(spec)
            progress("started")
            self._builder.finish(spec.name)
            undo.pop_all()
        LOG.info("guest %s: started", spec.name)

    def destroy(self, spec: InstanceSpec) -> None:
        self._domains.remove(spec)
        self._firewall.unfilter_instance(spec)
        self._networks.unplug(spec)
        self._volumes.forget(spec)
        self._builder.remove(spec.name)

    def reboot(self, spec: InstanceSpec, *, hard: bool = True, timeout_s: float = 60.0) -> None:
        power.reboot(self._domains, spec, self._prepared(spec), hard=hard, timeout_s=timeout_s)
        self._firewall.apply_instance_filter(spec)

    def power_on(self, spec: InstanceSpec) -> None:
        power.power_on(self._domains, spec, self._prepared(spec, keep_memory=True))
        self._firewall.apply_instance_filter(spec)

    def power_off(self, spec: InstanceSpec, timeout_s: float = 0.0) -> None:
        power.power_off(self._domains, spec, timeout_s)

    def get_info(self, name: str) -> GuestInfo:
        return self._domains.get_info(name)

    def list_guests(self) -> list[GuestFact]:
        return self._domains.list_guests()

    def host_resources(self) -> HostResources:
        if self._facts is None:
            self._facts = host_facts(self._host)
        return host_resources(self._facts, self._domains, self._builder.instances_path)

    def pause(self, spec: InstanceSpec) -> None:
        power.pause(self._domains, spec)

    def unpause(self, spec: InstanceSpec) -> None:
        power.unpause(self._domains, spec)

    def attach_nic(self, spec: InstanceSpec, vif: Vif) -> None:
        self._nics.attach(spec, vif)

    def detach_nic(self, spec: InstanceSpec, vif: Vif) -> None:
        self._nics.detach(spec, vif)

    def get_console_output(self, spec: InstanceSpec, max_bytes: int = 65536) -> str:
        self._domains.power(spec)
        return console.tail(self._builder.layout(spec.name).console_log, max_bytes)

    def get_console_pool_info(self, console_type: str) -> ConsolePool:  # noqa: ARG002 - one way in for every type
        """A proxy needs no account: each console has its own one-time token."""
        return ConsolePool(address=self._doors.address, username="", password="")

    def get_diagnostics(self, spec: InstanceSpec) -> dict[str, int]:
        return self._stats.diagnostics(spec)

    def list_disks(self, name: str) -> list[str]:
        return self._stats.targets(name, "disk")

    def list_interfaces(self, name: str) -> list[str]:
        return self._stats.targets(name, "interface")

    def block_stats(self, name: str, disk_id: str) -> BlockStats:
        return self._stats.block(name, disk_id)

    def interface_stats(self, name: str, interface_id: str) -> InterfaceStats:
        return self._stats.interface(name, interface_id)

    def _clear_the_place(self, spec: InstanceSpec) -> None:
        """Remove what a crashed attempt left; GuestExistsError when there is a guest to keep, or someone else's."""
        self._domains.refuse_foreign(spec)
        if not self._builder.is_half_made(spec.name) and self._domains.exists(spec):
            raise GuestExistsError(f"guest {spec.name}: exists")
        self.destroy(spec)

    def _take_back(self, spec: InstanceSpec) -> None:
        """Undo a spawn as far as it went. In order, so that a guest that cannot be stopped keeps filters and disks."""
        try:
            self.destroy(spec)
        except VirtError as exc:
            LOG.warning("guest %s: what was made of it stays until it is deleted: %s", spec.name, exc)

    def _prepared(self, spec: InstanceSpec, *, keep_memory: bool = False) -> str:
        """Have networks, filters and config drive in place for a guest that will start; its domain by `spec`.

        A guest that goes on from saved memory has the old config drive in its cache, so it keeps that one.
        """
        if self._domains.power(spec) is not Power.SUSPENDED or not keep_memory:
            self._tell(spec)
        self._volumes.prepare(spec)
        self._networks.plug(spec)
        self._firewall.prepare_instance_filter(spec)
        return self._xml(spec, self._builder.layout(spec.name))

    def _tell(self, spec: InstanceSpec) -> None:
        """Have the config drive that `spec` asks for."""
        if self._platform.has_config_drive(spec):
            self._builder.write_config_drive(spec)
        else:
            self._builder.remove_config_drive(spec.name)

    def _xml(self, spec: InstanceSpec, layout: Layout) -> str:
        return domain_for(self._firewall.behind_filters(spec), layout, self._platform).xml()
