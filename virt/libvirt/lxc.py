"""Containers on libvirt: the libvirt driver, less what a container cannot do, with its console kept by us."""

from __future__ import annotations

import logging
import stat
from collections.abc import Collection, Sequence
from typing import Self

from oslo_config.cfg import ConfigOpts

from virt.driver import (
    AttachesNics,
    AuditsFiles,
    CachesImages,
    ComputeDriver,
    EmitsEvents,
    FiltersTraffic,
    HasConsole,
    Pausable,
    Progress,
    ReportsStats,
    Told,
    no_progress,
)
from virt.errors import DriverConfigError, HypervisorError, UnsupportedError, VirtError
from virt.firewall.base import FirewallDriver
from virt.libvirt import console
from virt.libvirt.driver import LibvirtDriver
from virt.libvirt.filtering import Filtering
from virt.libvirt.lxc_build import ContainerBuilder, check_container
from virt.libvirt.lxc_domains import Containers, ContainerStats
from virt.spec import (
    BlockStats,
    ConsoleAccess,
    ConsolePool,
    GuestFact,
    GuestInfo,
    HostResources,
    InstanceSpec,
    InterfaceStats,
    Vif,
)
from virt.threads import Threads

LOG = logging.getLogger(__name__)


class ContainerHost(LibvirtDriver):
    """The libvirt driver with containers' files, listings and counters. Its user is LxcDriver."""

    name = "libvirt-lxc"
    builder_type = ContainerBuilder
    domains_type = Containers
    stats_type = ContainerStats
    _builder: ContainerBuilder
    _domains: Containers

    @property
    def firewall(self) -> FirewallDriver:
        """What filters the containers' packets."""
        return self._firewall

    def init_host(self, host: str) -> None:
        super().init_host(host)
        closed = [path for path in self._builder.path_of_strangers() if not path.stat().st_mode & stat.S_IXOTH]
        if closed:
            raise DriverConfigError(
                f"instances_path: {closed[0]} is closed to others, and root of a container is one: chmod o+x"
            )

    def limit(self, *, max_gb: int, max_files: int) -> None:
        """Limit what an archive may unpack to: GiB, where a flavor does not, and files."""
        self._builder.max_gb, self._builder.max_files = max_gb, max_files

    def keep_console(self, name: str) -> None:
        """Have what a container prints kept; succeed if it is off. Raises GuestNotFoundError, HypervisorError."""
        terminals = self._domains.terminals(name)
        if terminals and not self._builder.is_kept(name):
            self._builder.keep_console(name, terminals[0])

    def check_running(self, name: str) -> None:
        """Raise HypervisorError when the container that was just started is off: libvirt does not see its init fail."""
        if not self._domains.get_info(name).power.is_on:
            said = console.tail(self._builder.layout(name).console_log, 200).strip()
            raise HypervisorError(f"guest {name}: its init ended at once{': ' + said if said else ''}")

    def keep_consoles(self, facts: Sequence[GuestFact]) -> None:
        """The same for all of ours that are on, started by whomever: those that are kept cost no call."""
        for fact in facts:
            if fact.ours and fact.power.is_on and not self._builder.is_kept(fact.name):
                try:
                    self.keep_console(fact.name)
                except VirtError as exc:
                    LOG.warning("guest %s: what it prints is not kept: %s", fact.name, exc)

    def terminal(self, spec: InstanceSpec) -> ConsoleAccess:
        """A one-time way to the container's second terminal. Raises GuestNotFoundError, GuestStateError."""
        return console.terminal_door(self._domains, self._doors, spec, 1)

    def missing_files(self, specs: Sequence[InstanceSpec]) -> Sequence[tuple[str, str]]:
        absent = [spec for spec in specs if not self._builder.layout(spec.name).rootfs.is_dir()]
        return [(spec.name, "its root directory is missing") for spec in absent]


class LxcDriver(
    Filtering, ComputeDriver, Pausable, AttachesNics, HasConsole, FiltersTraffic, ReportsStats, EmitsEvents,
    CachesImages, AuditsFiles,
):  # fmt: skip
    """Containers of one libvirt. What is not in the class header, a container cannot do."""

    name = "libvirt-lxc"

    def __init__(self, host: ContainerHost) -> None:
        self._host, self._firewall = host, host.firewall

    @classmethod
    def from_conf(cls, conf: ConfigOpts, threads: Threads | None = None) -> Self:
        """Read the options of virt/conf.py and virt/libvirt/conf.py; `threads` when those here are green."""
        host = ContainerHost.from_conf(conf, threads)
        if conf.libvirt_type != "lxc":
            raise DriverConfigError(f"libvirt_type = {conf.libvirt_type}: this driver is for lxc")
        host.limit(max_gb=conf.max_image_gb, max_files=conf.lxc_max_files)
        return cls(host)

    def init_host(self, host: str) -> None:
        self._host.init_host(host)
        self.list_guests()

    def close(self) -> None:
        self._host.close()

    def tend(self) -> None:
        self._host.tend()

    def spawn(self, spec: InstanceSpec, progress: Progress = no_progress) -> None:
        check_container(spec)
        self._host.spawn(spec, progress)
        try:
            self._host.keep_console(spec.name)
            self._host.check_running(spec.name)
        except BaseException:
            self._host.destroy(spec)
            raise

    def destroy(self, spec: InstanceSpec) -> None:
        self._host.destroy(spec)

    def reboot(self, spec: InstanceSpec, *, hard: bool = True, timeout_s: float = 60.0) -> None:
        self._host.reboot(spec, hard=hard, timeout_s=timeout_s)
        self._host.keep_console(spec.name)

    def power_on(self, spec: InstanceSpec) -> None:
        self._host.power_on(spec)
        self._host.keep_console(spec.name)

    def power_off(self, spec: InstanceSpec, timeout_s: float = 0.0) -> None:
        self._host.power_off(spec, timeout_s)

    def get_info(self, name: str) -> GuestInfo:
        return self._host.get_info(name)

    def list_guests(self) -> list[GuestFact]:
        facts = self._host.list_guests()
        self._host.keep_consoles(facts)
        return facts

    def host_resources(self) -> HostResources:
        return self._host.host_resources()

    def pause(self, spec: InstanceSpec) -> None:
        self._host.pause(spec)

    def unpause(self, spec: InstanceSpec) -> None:
        self._host.unpause(spec)

    def attach_nic(self, spec: InstanceSpec, vif: Vif) -> None:
        self._host.attach_nic(spec, vif)

    def detach_nic(self, spec: InstanceSpec, vif: Vif) -> None:
        self._host.detach_nic(spec, vif)

    def get_console_output(self, spec: InstanceSpec, max_bytes: int = 65536) -> str:
        return self._host.get_console_output(spec, max_bytes)

    def get_ajax_console(self, spec: InstanceSpec) -> ConsoleAccess:
        """A one-time way to the terminal that is /dev/tty2 in the container: the first one is the log's."""
        return self._host.terminal(spec)

    def get_vnc_console(self, spec: InstanceSpec) -> ConsoleAccess:
        raise UnsupportedError(f"guest {spec.name}: a container has no screen")

    def get_console_pool_info(self, console_type: str) -> ConsolePool:
        return self._host.get_console_pool_info(console_type)

    def get_diagnostics(self, spec: InstanceSpec) -> dict[str, int]:
        return self._host.get_diagnostics(spec)

    def list_disks(self, name: str) -> list[str]:
        return self._host.list_disks(name)

    def list_interfaces(self, name: str) -> list[str]:
        return self._host.list_interfaces(name)

    def block_stats(self, name: str, disk_id: str) -> BlockStats:
        return self._host.block_stats(name, disk_id)

    def interface_stats(self, name: str, interface_id: str) -> InterfaceStats:
        return self._host.interface_stats(name, interface_id)

    def watch(self, told: Told) -> None:
        self._host.watch(told)

    def evict_images(self, unused_for_s: float) -> Sequence[str]:
        return self._host.evict_images(unused_for_s)

    def stray_files(self, known: Collection[str]) -> Sequence[str]:
        return self._host.stray_files(known)

    def missing_files(self, specs: Sequence[InstanceSpec]) -> Sequence[tuple[str, str]]:
        return self._host.missing_files(specs)

    def remove_stray_files(self, name: str) -> None:
        self._host.remove_stray_files(name)


def get_driver(conf: ConfigOpts, threads: Threads | None = None) -> ComputeDriver:
    """What `compute_driver = libvirt` means: containers for `libvirt_type` lxc, machines for every other."""
    from virt.libvirt.conf import OPTS

    conf.register_opts(OPTS)
    return (LxcDriver if conf.libvirt_type == "lxc" else LibvirtDriver).from_conf(conf, threads)
