"""The part of the driver that moves guests to other hosts and other sizes."""

from __future__ import annotations

import re
import tempfile
from abc import abstractmethod
from pathlib import Path

from virt.disk import remove_file
from virt.driver import LiveMigratable, Progress, Resizable, SharesStorage, no_progress
from virt.errors import DiskError, GuestNotFoundError
from virt.firewall.base import FirewallDriver
from virt.libvirt import cpu, power
from virt.libvirt.build import Builder
from virt.libvirt.domain import Platform
from virt.libvirt.domains import Domains
from virt.libvirt.host import Host
from virt.libvirt.layout import Layout
from virt.libvirt.migration import Manner, Migrator
from virt.libvirt.peer import Folder, Peers
from virt.libvirt.resize import Resizer
from virt.libvirt.volumes import Volumes
from virt.network.networks import Networks
from virt.spec import InstanceSpec

_TEST_FILE = re.compile(r"tmp[A-Za-z0-9_]{1,40}")


class Moves(Resizable, LiveMigratable, SharesStorage):
    """A base of LibvirtDriver."""

    _host: Host
    _domains: Domains
    _builder: Builder
    _networks: Networks
    _volumes: Volumes
    _firewall: FirewallDriver
    _platform: Platform
    _own_name = ""

    def _be_able_to_move(self, peers: Peers | None, manner: Manner | None) -> None:
        peers = peers or Peers("qemu+tls://%s/system", self._host.calls.threads)
        self._resizer = Resizer(
            self._domains, self._builder, self._builder.disks, peers, lambda dest: dest == self._own_name
        )
        self._migrator = Migrator(self._domains, self._builder, peers, manner or Manner())

    def _settle_moves(self, host: str) -> None:
        """Know this host's own name, and end the migrations that an earlier daemon left behind."""
        self._own_name = host
        self._migrator.abort_left_behind(self._host)

    def migrate_disk_and_power_off(self, spec: InstanceSpec, dest: str, progress: Progress = no_progress) -> str:
        info = self._resizer.hand_over(spec, dest, progress)
        self._leave(spec)
        return info

    def finish_resize(self, spec: InstanceSpec, disk_info: str, progress: Progress = no_progress) -> None:
        half_made = self._builder.is_half_made(spec.name)
        if half_made or not self._runs(spec):
            self._resizer.take_over(spec, disk_info, progress)
            progress("starting")
            self._start_here(spec)
            self._builder.finish(spec.name)

    def confirm_resize(self, spec: InstanceSpec) -> None:
        self._resizer.forget(spec)

    def revert_resize(self, spec: InstanceSpec) -> None:
        self._resizer.put_back(spec)
        if not self._runs(spec):
            self._start_here(spec)
        self._builder.finish(spec.name)

    def compare_cpu(self, cpu_info: str) -> None:
        cpu.compare(self._host, self._platform.arch, cpu_info, emulated=self._platform.type != "kvm")

    def pre_live_migration(self, spec: InstanceSpec) -> None:
        self._volumes.prepare(spec)
        self._networks.plug(spec)
        self._firewall.setup_basic_filtering(spec)
        self._firewall.prepare_instance_filter(spec)
        self._migrator.prepare(spec)
        self._firewall.expect_instance(spec)

    def live_migration(self, spec: InstanceSpec, dest: str, progress: Progress = no_progress) -> None:
        self._migrator.migrate(spec, dest, progress)

    def cleanup_live_migration(self, spec: InstanceSpec) -> None:
        if self._domains.exists(spec):
            return
        self._leave(spec)
        Folder(self._host, self._builder.layout(spec.name).directory).close()  # what a source that died left open
        self._migrator.forget(spec)

    def create_shared_storage_test_file(self) -> str:
        try:
            with tempfile.NamedTemporaryFile(dir=self._builder.instances_path, prefix="tmp", delete=False) as file:
                return Path(file.name).name
        except OSError as exc:
            raise DiskError(f"{self._builder.instances_path}: {exc.strerror}") from exc

    def check_shared_storage_test_file(self, filename: str) -> bool:
        return self._test_file(filename).exists()

    def cleanup_shared_storage_test_file(self, filename: str) -> None:
        remove_file(self._test_file(filename))

    def _test_file(self, filename: str) -> Path:
        if not _TEST_FILE.fullmatch(filename):
            raise DiskError(f"{filename!r:.80} is not a test file's name")
        return self._builder.instances_path / filename

    def _runs(self, spec: InstanceSpec) -> bool:
        try:
            return self._domains.power(spec) in power.RUNS
        except GuestNotFoundError:
            return False

    def _start_here(self, spec: InstanceSpec) -> None:
        """Start a guest whose files are here, as `spec` says, behind its filters."""
        self._volumes.prepare(spec)
        self._networks.plug(spec)
        self._tell(spec)
        self._firewall.setup_basic_filtering(spec)
        self._firewall.prepare_instance_filter(spec)
        self._domains.boot(spec, self._xml(spec, self._builder.layout(spec.name)))
        self._firewall.apply_instance_filter(spec)

    def _leave(self, spec: InstanceSpec) -> None:
        """Take away what was here for a guest that is not here any more, but for its files."""
        self._firewall.unfilter_instance(spec)
        self._networks.unplug(spec)
        self._volumes.forget(spec)

    @abstractmethod
    def _tell(self, spec: InstanceSpec) -> None:
        """Have the config drive that `spec` asks for."""

    @abstractmethod
    def _xml(self, spec: InstanceSpec, layout: Layout) -> str:
        """The guest's domain."""
