"""Containers on libvirt: what guests have in common, with containers' files, listings, counters and consoles."""

from __future__ import annotations

import logging
import stat
from collections.abc import Sequence
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
    no_progress,
)
from virt.errors import DriverConfigError, HypervisorError, UnsupportedError, VirtError
from virt.libvirt import console
from virt.libvirt.driver import LibvirtDriver
from virt.libvirt.guests import LibvirtGuests
from virt.libvirt.lxc_build import ContainerBuilder, check_container
from virt.libvirt.lxc_domains import Containers, ContainerStats
from virt.spec import ConsoleAccess, GuestFact, InstanceSpec
from virt.threads import Threads

LOG = logging.getLogger(__name__)


class LxcDriver(
    LibvirtGuests, ComputeDriver, Pausable, AttachesNics, HasConsole, FiltersTraffic, ReportsStats, EmitsEvents,
    CachesImages, AuditsFiles,
):  # fmt: skip
    """Containers of one libvirt. What is not in the class header, a container cannot do."""

    name = "libvirt-lxc"
    builder_type = ContainerBuilder
    domains_type = Containers
    stats_type = ContainerStats
    _builder: ContainerBuilder
    _domains: Containers

    @classmethod
    def from_conf(cls, conf: ConfigOpts, threads: Threads | None = None) -> Self:
        """As for every guest of libvirt; DriverConfigError unless `libvirt_type` is lxc."""
        made = super().from_conf(conf, threads)
        if conf.libvirt_type != "lxc":
            raise DriverConfigError(f"libvirt_type = {conf.libvirt_type}: this driver is for lxc")
        made.limit(max_gb=conf.max_image_gb, max_files=conf.lxc_max_files)
        return made

    def limit(self, *, max_gb: int, max_files: int) -> None:
        """Limit what an archive may unpack to: GiB, where a flavor does not, and files."""
        self._builder.max_gb, self._builder.max_files = max_gb, max_files

    def init_host(self, host: str) -> None:
        super().init_host(host)
        closed = [path for path in self._builder.path_of_strangers() if not path.stat().st_mode & stat.S_IXOTH]
        if closed:
            raise DriverConfigError(
                f"instances_path: {closed[0]} is closed to others, and root of a container is one: chmod o+x"
            )
        self.list_guests()

    def spawn(self, spec: InstanceSpec, progress: Progress = no_progress) -> None:
        check_container(spec)
        super().spawn(spec, progress)
        try:
            self._keep_console(spec.name)
            self._check_running(spec.name)
        except BaseException:
            self.destroy(spec)
            raise

    def reboot(self, spec: InstanceSpec, *, hard: bool = True, timeout_s: float = 60.0) -> None:
        super().reboot(spec, hard=hard, timeout_s=timeout_s)
        self._keep_console(spec.name)

    def power_on(self, spec: InstanceSpec) -> None:
        super().power_on(spec)
        self._keep_console(spec.name)

    def list_guests(self) -> list[GuestFact]:
        facts = super().list_guests()
        self._keep_consoles(facts)
        return facts

    def get_ajax_console(self, spec: InstanceSpec) -> ConsoleAccess:
        """A one-time way to the terminal that is /dev/tty2 in the container: the first one is the log's."""
        return console.terminal_door(self._domains, self._doors, spec, 1)

    def get_vnc_console(self, spec: InstanceSpec) -> ConsoleAccess:
        raise UnsupportedError(f"guest {spec.name}: a container has no screen")

    def missing_files(self, specs: Sequence[InstanceSpec]) -> Sequence[tuple[str, str]]:
        absent = [spec for spec in specs if not self._builder.layout(spec.name).rootfs.is_dir()]
        return [(spec.name, "its root directory is missing") for spec in absent]

    def _keep_console(self, name: str) -> None:
        """Have what a container prints kept; succeed if it is off. Raises GuestNotFoundError, HypervisorError."""
        terminals = self._domains.terminals(name)
        if terminals and not self._builder.is_kept(name):
            self._builder.keep_console(name, terminals[0])

    def _keep_consoles(self, facts: Sequence[GuestFact]) -> None:
        """The same for all of ours that are on, started by whomever: those that are kept cost no call."""
        for fact in facts:
            if fact.ours and fact.power.is_on and not self._builder.is_kept(fact.name):
                try:
                    self._keep_console(fact.name)
                except VirtError as exc:
                    LOG.warning("guest %s: what it prints is not kept: %s", fact.name, exc)

    def _check_running(self, name: str) -> None:
        """Raise HypervisorError when the container that was just started is off: libvirt does not see its init fail."""
        if not self._domains.get_info(name).power.is_on:
            said = console.tail(self._builder.layout(name).console_log, 200).strip()
            raise HypervisorError(f"guest {name}: its init ended at once{': ' + said if said else ''}")


def get_driver(conf: ConfigOpts, threads: Threads | None = None) -> ComputeDriver:
    """What `compute_driver = libvirt` means: containers for `libvirt_type` lxc, machines for every other."""
    from virt.libvirt.conf import OPTS

    conf.register_opts(OPTS)
    return (LxcDriver if conf.libvirt_type == "lxc" else LibvirtDriver).from_conf(conf, threads)
