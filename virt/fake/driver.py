"""The fake driver: one fake host, seen through the driver interface."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Self

from oslo_config.cfg import ConfigOpts

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
    Told,
    no_progress,
)
from virt.errors import DriverConfigError, HypervisorUnreachableError
from virt.fake import build, devices, filters, inside, migration, power, upkeep
from virt.fake.conf import OPTS
from virt.fake.faults import WORDS, Faults
from virt.fake.hypervisor import FakeCloud, FakeHypervisor, HostSize
from virt.firewall.base import Drift
from virt.spec import (
    BlockStats,
    ConsoleAccess,
    ConsolePool,
    GuestFact,
    GuestInfo,
    GuestUsage,
    HostResources,
    InstanceSpec,
    InterfaceStats,
    SnapshotResult,
    Vif,
    VolumeAttachment,
)

CPU_INFO = json.dumps(
    {
        "arch": "x86_64",
        "model": "fake",
        "vendor": "Fake",
        "topology": {"cores": 8, "sockets": 2, "threads": 2},
        "features": ["aes", "sse4.2", "vmx"],
    }
)


class FakeDriver(
    ComputeDriver,
    Pausable,
    Suspendable,
    Rescuable,
    Resizable,
    LiveMigratable,
    SharesStorage,
    Snapshots,
    BootsFromVolumes,
    AttachesNics,
    HasConsole,
    InjectsGuest,
    FiltersTraffic,
    ReportsStats,
    ReportsUsage,
    EmitsEvents,
    CachesImages,
    AuditsFiles,
):
    """Serves one host of a FakeCloud.

    calls counts the calls by method; faults makes things go wrong; hypervisor is the world itself, for whoever wants
    to look at it or change it behind the driver's back.
    """

    name = "fake"

    def __init__(self, cloud: FakeCloud | None = None, latency_s: float = 0.0, failures: Sequence[str] = ()) -> None:
        self.calls: Counter[str] = Counter()
        self.faults = Faults()
        self._cloud = cloud or FakeCloud()
        self._latency_s = latency_s
        self._hypervisor: FakeHypervisor | None = None
        self.faults.load(failures)

    @classmethod
    def from_conf(cls, conf: ConfigOpts) -> Self:
        conf.register_opts(OPTS)
        size = HostSize(vcpus=conf.fake_vcpus, memory_mb=conf.fake_memory_mb, local_gb=conf.fake_local_gb)
        try:
            cloud = FakeCloud(conf.fake_state_path, size, conf.fake_seed)
            return cls(cloud, conf.fake_latency_s, conf.fake_failures)
        except ValueError as exc:
            raise DriverConfigError(f"fake_failures: {exc}") from exc

    def init_host(self, host: str) -> None:
        self.calls["init_host"] += 1
        self.close()
        self._hypervisor = self._cloud.open(host)
        self._hypervisor.restarted()
        self.faults.watch(self._cloud.faults_file(host))

    def close(self) -> None:
        if self._hypervisor is not None:
            self._hypervisor.close()
            self._hypervisor = None

    @property
    def hypervisor(self) -> FakeHypervisor:
        """The world behind; HypervisorUnreachableError before init_host and after close."""
        if self._hypervisor is None:
            raise HypervisorUnreachableError("the fake driver is not connected")
        return self._hypervisor

    def _call(self, method: str, progress: Progress = no_progress) -> _Call:
        return _Call(self, method, progress)

    def get_host_ip_addr(self) -> str:
        """Fake hosts reach each other by name."""
        return self.hypervisor.host

    def pass_latency(self) -> None:
        """Take the time that every call takes."""
        if self._latency_s:
            time.sleep(self._latency_s)

    # Core

    def spawn(self, spec: InstanceSpec, progress: Progress = no_progress) -> None:
        with self._call("spawn", progress) as call:
            build.spawn(call.host, spec, call.step)

    def destroy(self, spec: InstanceSpec) -> None:
        with self._call("destroy") as call:
            build.remove(call.host, spec)

    def reboot(self, spec: InstanceSpec, *, hard: bool = True, timeout_s: float = 60.0) -> None:
        with self._call("reboot") as call:
            power.reboot(call.host, spec, hard=hard, timeout_s=timeout_s)

    def power_on(self, spec: InstanceSpec) -> None:
        with self._call("power_on") as call:
            power.power_on(call.host, spec)

    def power_off(self, spec: InstanceSpec, timeout_s: float = 0.0) -> None:
        with self._call("power_off") as call:
            power.power_off(call.host, spec.name, timeout_s)

    def get_info(self, name: str) -> GuestInfo:
        with self._call("get_info") as call:
            domain = call.host.domain(name)
            max_mem_kb = domain.memory_mb * 1024
            return GuestInfo(
                power=domain.power,
                max_mem_kb=max_mem_kb,
                mem_kb=max_mem_kb if domain.power.is_on else 0,
                num_cpu=domain.vcpus,
                cpu_time_ns=domain.cpu_time_ns(),
            )

    def list_guests(self) -> Sequence[GuestFact]:
        with self._call("list_guests") as call:
            return call.host.facts()

    def host_resources(self) -> HostResources:
        with self._call("host_resources") as call:
            memory_mb, disk_mb, vcpus = call.host.usage
            size = call.host.size
            return HostResources(
                vcpus=size.vcpus,
                memory_mb=size.memory_mb,
                local_gb=size.local_gb,
                memory_mb_used=memory_mb,
                local_gb_used=-(-disk_mb // 1024),
                vcpus_used=vcpus,
                hypervisor_type="fake",
                hypervisor_version=2011002,
                cpu_info=CPU_INFO,
            )

    # Pausable, Suspendable, Rescuable

    def pause(self, spec: InstanceSpec) -> None:
        with self._call("pause") as call:
            power.move(call.host, spec.name, "pause")

    def unpause(self, spec: InstanceSpec) -> None:
        with self._call("unpause") as call:
            power.move(call.host, spec.name, "unpause")

    def suspend(self, spec: InstanceSpec) -> None:
        with self._call("suspend") as call:
            power.move(call.host, spec.name, "suspend")

    def resume(self, spec: InstanceSpec) -> None:
        with self._call("resume") as call:
            power.move(call.host, spec.name, "resume")

    def rescue(self, spec: InstanceSpec, rescue: InstanceSpec, progress: Progress = no_progress) -> None:
        with self._call("rescue", progress) as call:
            build.rescue(call.host, spec, rescue, call.step)

    def unrescue(self, spec: InstanceSpec) -> None:
        with self._call("unrescue") as call:
            build.unrescue(call.host, spec)

    # Resizable, LiveMigratable, SharesStorage

    def migrate_disk_and_power_off(self, spec: InstanceSpec, dest: str, progress: Progress = no_progress) -> str:
        with self._call("migrate_disk_and_power_off", progress) as call:
            return migration.migrate_disk_and_power_off(call.host, spec, dest, call.step)

    def finish_resize(self, spec: InstanceSpec, disk_info: str, progress: Progress = no_progress) -> None:
        with self._call("finish_resize", progress) as call:
            migration.finish_resize(call.host, spec, disk_info, call.step)

    def confirm_resize(self, spec: InstanceSpec) -> None:
        with self._call("confirm_resize") as call:
            migration.confirm_resize(call.host, spec)

    def revert_resize(self, spec: InstanceSpec) -> None:
        with self._call("revert_resize") as call:
            migration.revert_resize(call.host, spec)

    def compare_cpu(self, cpu_info: str) -> None:
        with self._call("compare_cpu"):
            migration.compare_cpu(CPU_INFO, cpu_info)

    def pre_live_migration(self, spec: InstanceSpec) -> None:
        with self._call("pre_live_migration") as call:
            migration.prepare(call.host, spec)

    def live_migration(self, spec: InstanceSpec, dest: str, progress: Progress = no_progress) -> None:
        with self._call("live_migration", progress) as call:
            migration.live_migration(call.host, spec, dest, call.step)

    def cleanup_live_migration(self, spec: InstanceSpec) -> None:
        with self._call("cleanup_live_migration") as call:
            migration.cleanup(call.host, spec)

    def create_shared_storage_test_file(self) -> str:
        with self._call("create_shared_storage_test_file") as call:
            filename = f"tmp{call.host.token()}"
            call.host.commons.share_file(filename)
            return filename

    def check_shared_storage_test_file(self, filename: str) -> bool:
        with self._call("check_shared_storage_test_file") as call:
            return call.host.commons.sees_file(filename)

    def cleanup_shared_storage_test_file(self, filename: str) -> None:
        with self._call("cleanup_shared_storage_test_file") as call:
            call.host.commons.remove_file(filename)

    # Snapshots, AttachesVolumes, AttachesNics

    def snapshot(self, spec: InstanceSpec, path: str, progress: Progress = no_progress) -> SnapshotResult:
        with self._call("snapshot", progress) as call:
            return inside.snapshot(call.host, spec, path, call.step)

    def attach_volume(self, spec: InstanceSpec, volume: VolumeAttachment) -> None:
        with self._call("attach_volume") as call:
            devices.attach_volume(call.host, spec, volume)

    def detach_volume(self, spec: InstanceSpec, volume: VolumeAttachment) -> None:
        with self._call("detach_volume") as call:
            devices.detach_volume(call.host, spec, volume)

    def attach_nic(self, spec: InstanceSpec, vif: Vif) -> None:
        with self._call("attach_nic") as call:
            devices.attach_nic(call.host, spec, vif)

    def detach_nic(self, spec: InstanceSpec, vif: Vif) -> None:
        with self._call("detach_nic") as call:
            devices.detach_nic(call.host, spec, vif)

    # HasConsole, InjectsGuest

    def get_console_output(self, spec: InstanceSpec, max_bytes: int = 65536) -> str:
        with self._call("get_console_output") as call:
            return inside.console_output(call.host, spec.name, max_bytes)

    def get_ajax_console(self, spec: InstanceSpec) -> ConsoleAccess:
        with self._call("get_ajax_console") as call:
            return inside.console_access(call.host, spec.name)

    def get_vnc_console(self, spec: InstanceSpec) -> ConsoleAccess:
        with self._call("get_vnc_console") as call:
            return inside.console_access(call.host, spec.name)

    def get_console_pool_info(self, console_type: str) -> ConsolePool:  # noqa: ARG002 - one pool for every type
        with self._call("get_console_pool_info") as call:
            return ConsolePool(address="127.0.0.1", username="fakeuser", password=call.host.pool_password)

    def set_admin_password(self, spec: InstanceSpec, new_pass: str) -> None:
        with self._call("set_admin_password") as call:
            inside.set_admin_password(call.host, spec.name, new_pass)

    def inject_file(self, spec: InstanceSpec, path: str, contents: bytes) -> None:
        with self._call("inject_file") as call:
            inside.inject_file(call.host, spec.name, path, contents)

    def reset_network(self, spec: InstanceSpec) -> None:
        with self._call("reset_network") as call:
            inside.reset_network(call.host, spec.name)

    def inject_network_info(self, spec: InstanceSpec) -> None:
        with self._call("inject_network_info") as call:
            inside.inject_network_info(call.host, spec)

    # FiltersTraffic, ReportsStats

    def ensure_filtering_rules_for_instance(self, spec: InstanceSpec) -> None:
        with self._call("ensure_filtering_rules_for_instance") as call:
            filters.ensure(call.host, spec)

    def unfilter_instance(self, spec: InstanceSpec) -> None:
        with self._call("unfilter_instance") as call:
            filters.unfilter(call.host, spec)

    def refresh_security_group_rules(self, specs: Sequence[InstanceSpec]) -> None:
        with self._call("refresh_security_group_rules") as call:
            filters.refresh_rules(call.host, specs)

    def refresh_security_group_members(self, group_id: int, members: Sequence[str]) -> None:
        with self._call("refresh_security_group_members") as call:
            call.host.set_group_members({group_id: tuple(members)})

    def refresh_provider_fw_rules(self, rules: Sequence[Mapping[str, str]]) -> None:
        with self._call("refresh_provider_fw_rules") as call:
            call.host.set_provider_rules([dict(rule) for rule in rules])

    def audit_filters(self, specs: Sequence[InstanceSpec], rules: Sequence[Mapping[str, str]]) -> Sequence[Drift]:
        with self._call("audit_filters") as call:
            return filters.audit(call.host, specs, rules)

    def repair_filters(self, specs: Sequence[InstanceSpec], rules: Sequence[Mapping[str, str]]) -> Sequence[Drift]:
        with self._call("repair_filters") as call:
            return filters.repair(call.host, specs, rules)

    def get_diagnostics(self, spec: InstanceSpec) -> dict[str, int]:
        with self._call("get_diagnostics") as call:
            return inside.diagnostics(call.host, spec.name)

    def list_disks(self, name: str) -> list[str]:
        with self._call("list_disks") as call:
            return inside.disks(call.host, name)

    def list_interfaces(self, name: str) -> list[str]:
        with self._call("list_interfaces") as call:
            return inside.taps(call.host, name)

    def block_stats(self, name: str, disk_id: str) -> BlockStats:
        with self._call("block_stats") as call:
            return inside.block_stats(call.host, name, disk_id)

    def interface_stats(self, name: str, interface_id: str) -> InterfaceStats:
        with self._call("interface_stats") as call:
            return inside.interface_stats(call.host, name, interface_id)

    # ReportsUsage, EmitsEvents, CachesImages, AuditsFiles

    def usage(self) -> Sequence[GuestUsage]:
        with self._call("usage") as call:
            return inside.usage(call.host)

    def watch(self, told: Told) -> None:
        """No call of its own: fake events are never lost, so nothing has to be asked again."""
        self.hypervisor.told = told

    def evict_images(self, unused_for_s: float) -> Sequence[str]:  # noqa: ARG002 - fake images take no room
        with self._call("evict_images"):
            return []

    def stray_files(self, known: Collection[str]) -> Sequence[str]:
        with self._call("stray_files") as call:
            return upkeep.stray(call.host, known)

    def missing_files(self, specs: Sequence[InstanceSpec]) -> Sequence[tuple[str, str]]:
        with self._call("missing_files") as call:
            return upkeep.missing(call.host, specs)

    def remove_stray_files(self, name: str) -> None:
        with self._call("remove_stray_files") as call:
            upkeep.remove_stray(call.host, name)


class _Call:
    """One call to the hypervisor: counted, delayed, and subject to faults before, within and after."""

    __slots__ = ("_driver", "_method", "_progress", "host")

    def __init__(self, driver: FakeDriver, method: str, progress: Progress) -> None:
        self._driver, self._method, self._progress = driver, method, progress
        self.host: FakeHypervisor

    def __enter__(self) -> Self:
        driver = self._driver
        driver.calls[self._method] += 1
        driver.pass_latency()
        driver.faults.begin(self._method)
        self.host = driver.hypervisor
        self.host.arrive()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None and self._driver.faults.armed:
            self._driver.faults.reach(f"{self._method}.done")

    def step(self, step: str) -> None:
        """Between steps: a point for faults, and a word to the caller, who may raise to cancel."""
        if self._driver.faults.armed:
            self._driver.faults.reach(f"{self._method}.{step}")
        self._progress(WORDS[step])
