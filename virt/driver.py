"""The driver interface: a small core, and one small ABC per capability.

A driver class lists what it can do in its bases. Callers ask once with `require`; nothing here raises "not
implemented". Names are those of Nova 2011.2's drivers; where they disagreed, one name.

Every method may raise HypervisorUnreachableError (nothing is known), DriverTimeoutError (outcome unknown) and
HypervisorError (it refused, in its own words) besides what its own docstring names. Every method is idempotent:
an operation is repeated after a crash.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Self, TypeVar

from oslo_config.cfg import ConfigOpts

from virt.errors import UnsupportedError
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

Told = Callable[[str | None], None]
"""Called with the uuid of a guest that something happened to; None: to any, for events may have been missed."""

Progress = Callable[[str], None]
"""Called between steps with a few words ("downloading image"). It may raise: the operation was cancelled."""


def no_progress(step: str) -> None:
    """Take no notice of a step."""


class ComputeDriver(ABC):
    """What every hypervisor driver does."""

    name: str = "driver"

    @abstractmethod
    def init_host(self, host: str) -> None:
        """Connect and get ready to serve `host`; DriverConfigError when this machine cannot."""

    @classmethod
    @abstractmethod
    def from_conf(cls, conf: ConfigOpts) -> Self:
        """Build one from the daemon's configuration; DriverConfigError names an option that will not do."""

    def close(self) -> None:  # noqa: B027 - nothing to let go of is the common case
        """Let go of connections and threads; guests stay as they are."""

    def tend(self) -> None:  # noqa: B027 - nothing that can end by itself is the common case
        """Put right what has ended by itself on the host beside the guests. Called every periodic_interval seconds."""

    @abstractmethod
    def spawn(self, spec: InstanceSpec, progress: Progress = no_progress) -> None:
        """Make the guest and start it; on return it runs. On any error nothing of it is left on the host.

        Raises GuestExistsError, ImageError, DiskError, NetworkError.
        """

    @abstractmethod
    def destroy(self, spec: InstanceSpec) -> None:
        """Remove a guest, its disks, taps and filters, running or not; succeed if it is already gone.

        What a resize keeps for a revert (Resizable) is not the guest's: confirm_resize or revert_resize ends it.
        """

    @abstractmethod
    def reboot(self, spec: InstanceSpec, *, hard: bool = True, timeout_s: float = 60.0) -> None:
        """Restart the guest; on return it runs.

        Hard: power cycle, redefined from `spec`, from any power state. Soft: ask the guest, and do it the hard way
        when it does not obey within `timeout_s`. Raises GuestNotFoundError.
        """

    @abstractmethod
    def power_on(self, spec: InstanceSpec) -> None:
        """Start a guest that is off, redefined from `spec`; succeed if it runs. Raises GuestNotFoundError."""

    @abstractmethod
    def power_off(self, spec: InstanceSpec, timeout_s: float = 0.0) -> None:
        """Stop a guest: ask it first when `timeout_s` > 0, pull the plug at its end; succeed if it is off.

        Raises GuestNotFoundError.
        """

    @abstractmethod
    def get_info(self, name: str) -> GuestInfo:
        """Facts about one guest; GuestNotFoundError only when the hypervisor said so."""

    @abstractmethod
    def list_guests(self) -> Sequence[GuestFact]:
        """Every guest with its power state, in a number of hypervisor calls that does not grow with the guests.

        Returns only on a connection that was healthy before and after; otherwise HypervisorUnreachableError.
        """

    @abstractmethod
    def host_resources(self) -> HostResources:
        """What this host has and uses, at a cost that does not grow with the guests."""

    def get_host_ip_addr(self) -> str | None:
        """The address other hosts reach this one's hypervisor by; None leaves it to the `my_ip` flag."""
        return None


class Pausable(ABC):
    """Freezes a guest's CPUs in memory."""

    @abstractmethod
    def pause(self, spec: InstanceSpec) -> None:
        """Freeze a running guest; succeed if it is paused. Raises GuestNotFoundError, GuestStateError."""

    @abstractmethod
    def unpause(self, spec: InstanceSpec) -> None:
        """Let a paused guest go on; succeed if it runs. Raises GuestNotFoundError, GuestStateError."""


class Suspendable(ABC):
    """Saves a guest's memory to disk."""

    @abstractmethod
    def suspend(self, spec: InstanceSpec) -> None:
        """Save memory to disk and stop; succeed if it is suspended. Raises GuestNotFoundError, GuestStateError."""

    @abstractmethod
    def resume(self, spec: InstanceSpec) -> None:
        """Go on from saved memory; succeed if it runs. Raises GuestNotFoundError, GuestStateError."""


class Rescuable(ABC):
    """Boots a guest from a rescue image with its own root disk as the second disk."""

    @abstractmethod
    def rescue(self, spec: InstanceSpec, rescue: InstanceSpec, progress: Progress = no_progress) -> None:
        """Stop the guest and boot it from `rescue`'s image, kernel and ramdisk.

        Raises GuestNotFoundError, ImageError.
        """

    @abstractmethod
    def unrescue(self, spec: InstanceSpec) -> None:
        """Boot the guest's own disks again and remove the rescue ones. Raises GuestNotFoundError."""


class Resizable(ABC):
    """Moves a stopped guest, to another size or to another host."""

    @abstractmethod
    def migrate_disk_and_power_off(self, spec: InstanceSpec, dest: str, progress: Progress = no_progress) -> str:
        """Stop the guest and make its disks reachable to `dest`; the source keeps them for a revert.

        Returns disk_info: JSON that `finish_resize` understands. Raises GuestNotFoundError, DiskError.
        """

    @abstractmethod
    def finish_resize(self, spec: InstanceSpec, disk_info: str, progress: Progress = no_progress) -> None:
        """On the destination: take over the disks, grow them to `spec` and start the guest."""

    @abstractmethod
    def confirm_resize(self, spec: InstanceSpec) -> None:
        """On the source: remove what was kept for a revert; succeed if it is gone. Never touches a moved guest."""

    @abstractmethod
    def revert_resize(self, spec: InstanceSpec) -> None:
        """On the source: start the guest again from what was kept, at `spec`'s (old) size."""


class LiveMigratable(ABC):
    """Moves a running guest to another host."""

    @abstractmethod
    def compare_cpu(self, cpu_info: str) -> None:
        """Succeed if a guest of a host with `cpu_info` (JSON of HostResources) can run here.

        Raises IncompatibleCpuError when it cannot.
        """

    @abstractmethod
    def pre_live_migration(self, spec: InstanceSpec) -> None:
        """On the destination: have networks, volumes and filters in place before the first byte of memory."""

    @abstractmethod
    def live_migration(self, spec: InstanceSpec, dest: str, progress: Progress = no_progress) -> None:
        """On the source: move the guest to `dest` and return when it runs there and is gone here.

        On an error the guest runs here still, or DriverTimeoutError says that nobody knows.
        """

    @abstractmethod
    def cleanup_live_migration(self, spec: InstanceSpec) -> None:
        """Remove what a guest that does not run here left: on the source after, on the destination after a failure."""


class SharesStorage(ABC):
    """Can tell whether two hosts see the same instances directory (2011.2's test files)."""

    @abstractmethod
    def create_shared_storage_test_file(self) -> str:
        """Make a file in the instances directory and return its base name."""

    @abstractmethod
    def check_shared_storage_test_file(self, filename: str) -> bool:
        """True if that file is visible here."""

    @abstractmethod
    def cleanup_shared_storage_test_file(self, filename: str) -> None:
        """Remove it; succeed if it is gone."""


class Snapshots(ABC):
    """Makes an image of a guest's root disk."""

    @abstractmethod
    def snapshot(self, spec: InstanceSpec, path: str, progress: Progress = no_progress) -> SnapshotResult:
        """Write the root disk as a self-contained image to `path`; the guest keeps its power state.

        On an error neither the file nor a snapshot of it is left. Raises GuestNotFoundError, DiskError, and VolumeError
        for a guest that boots from a volume, which its own storage copies.
        """


class AttachesVolumes(ABC):
    """Plugs volumes into guests, running or stopped."""

    @abstractmethod
    def attach_volume(self, spec: InstanceSpec, volume: VolumeAttachment) -> None:
        """Plug it in; succeed if this attachment is in place. Raises GuestNotFoundError, VolumeError."""

    @abstractmethod
    def detach_volume(self, spec: InstanceSpec, volume: VolumeAttachment) -> None:
        """Unplug it and return when the guest has let go; succeed if it is not attached or the guest is gone.

        Raises VolumeError when the guest will not let go: it is attached still.
        """


class BootsFromVolumes(AttachesVolumes):
    """Boots guests from a volume: spawn makes no root disk when VolumeAttachment.is_root says so.

    Everything else goes on from there: reboot and rescue, which has that volume as the second disk.
    """


class AttachesNics(ABC):
    """Plugs network interfaces into guests."""

    @abstractmethod
    def attach_nic(self, spec: InstanceSpec, vif: Vif) -> None:
        """Plug it in; succeed if it is in place. Raises GuestNotFoundError, NetworkError."""

    @abstractmethod
    def detach_nic(self, spec: InstanceSpec, vif: Vif) -> None:
        """Unplug it; succeed if it is not there. Raises GuestNotFoundError."""


class HasConsole(ABC):
    """Shows what a guest prints, and opens its screen."""

    @abstractmethod
    def get_console_output(self, spec: InstanceSpec, max_bytes: int = 65536) -> str:
        """The end of the console log, undecodable bytes replaced. Raises GuestNotFoundError."""

    @abstractmethod
    def get_ajax_console(self, spec: InstanceSpec) -> ConsoleAccess:
        """A one-time way to the serial console. Raises GuestNotFoundError, GuestStateError when it is off."""

    @abstractmethod
    def get_vnc_console(self, spec: InstanceSpec) -> ConsoleAccess:
        """A one-time way to the screen. Raises GuestNotFoundError, GuestStateError when it is off."""

    @abstractmethod
    def get_console_pool_info(self, console_type: str) -> ConsolePool:
        """How a proxy for `console_type` consoles reaches this host."""


class InjectsGuest(ABC):
    """Changes things inside a running guest, through an agent in it."""

    @abstractmethod
    def set_admin_password(self, spec: InstanceSpec, new_pass: str) -> None:
        """Set the administrator's password. Raises GuestNotFoundError, GuestStateError (off, or no agent answers)."""

    @abstractmethod
    def inject_file(self, spec: InstanceSpec, path: str, contents: bytes) -> None:
        """Write a file at an absolute path. Raises GuestNotFoundError, GuestStateError."""

    @abstractmethod
    def reset_network(self, spec: InstanceSpec) -> None:
        """Have the guest configure its network anew. Raises GuestNotFoundError, GuestStateError."""

    @abstractmethod
    def inject_network_info(self, spec: InstanceSpec) -> None:
        """Hand the guest its network facts, to be used at its next `reset_network`. Raises GuestNotFoundError."""


class FiltersTraffic(ABC):
    """Filters guests' packets by security group."""

    @abstractmethod
    def ensure_filtering_rules_for_instance(self, spec: InstanceSpec) -> None:
        """Have the guest's filters in place before any packet of it can pass."""

    @abstractmethod
    def unfilter_instance(self, spec: InstanceSpec) -> None:
        """Remove the filters of a guest that is not here any more; succeed if they are gone."""

    @abstractmethod
    def refresh_security_group_rules(self, specs: Sequence[InstanceSpec]) -> None:
        """Make the filters of these guests match their changed group rules, all or nothing."""

    @abstractmethod
    def refresh_security_group_members(self, group_id: int, members: Sequence[str]) -> None:
        """Make `members` the addresses that rules with source `group_id` admit."""

    @abstractmethod
    def refresh_provider_fw_rules(self, rules: Sequence[Mapping[str, str]]) -> None:
        """Make these the provider's deny rules for every guest."""

    @abstractmethod
    def audit_filters(self, specs: Sequence[InstanceSpec], rules: Sequence[Mapping[str, str]]) -> Sequence[Drift]:
        """Where filters differ from what these guests, all that this host has, and the provider's rules need."""

    @abstractmethod
    def repair_filters(self, specs: Sequence[InstanceSpec], rules: Sequence[Mapping[str, str]]) -> Sequence[Drift]:
        """Make filters what these guests, all that this host has, and the provider's rules need; says what was amiss.

        Called before a daemon serves, and by the clock.
        """


class ReportsStats(ABC):
    """Counts what guests use. Disks and interfaces are named by opaque ids that only this driver reads."""

    @abstractmethod
    def get_diagnostics(self, spec: InstanceSpec) -> dict[str, int]:
        """Counters by name, for an operator's eyes. Raises GuestNotFoundError, GuestStateError when it is off."""

    @abstractmethod
    def list_disks(self, name: str) -> list[str]:
        """Ids of the guest's disks. Raises GuestNotFoundError."""

    @abstractmethod
    def list_interfaces(self, name: str) -> list[str]:
        """Ids of the guest's interfaces. Raises GuestNotFoundError."""

    @abstractmethod
    def block_stats(self, name: str, disk_id: str) -> BlockStats:
        """One disk's counters. Raises GuestNotFoundError."""

    @abstractmethod
    def interface_stats(self, name: str, interface_id: str) -> InterfaceStats:
        """One interface's counters. Raises GuestNotFoundError."""


class ReportsUsage(ABC):
    """Counts what all guests use, in one go."""

    @abstractmethod
    def usage(self) -> Sequence[GuestUsage]:
        """The counters of every guest of ours that is on, in a number of calls that does not grow with the guests.

        One that does not answer is not waited for: what only it could tell is left out.
        """


class EmitsEvents(ABC):
    """Tells when something happens to a guest, long before a listing would show it."""

    @abstractmethod
    def watch(self, told: Told) -> None:
        """From now on call `told` whenever a guest's power state may have changed by itself, until `close`.

        To be called again every second or so: cheap while events come; otherwise it listens anew, and then calls
        `told(None)`. `told` may be called from any native thread, also for what this driver did, and must not block.
        What it is called with is a hint where to look, never a fact.
        """


class CachesImages(ABC):
    """Keeps images on the host for guests to come."""

    @abstractmethod
    def evict_images(self, unused_for_s: float) -> Sequence[str]:
        """Remove images that no guest has and none was built from for so long; their names."""


class AuditsFiles(ABC):
    """Finds files on the host without a guest, and guests without their files."""

    @abstractmethod
    def stray_files(self, known: Collection[str]) -> Sequence[str]:
        """Names of guests that have files here, are none of `known`, and are not known to the hypervisor either."""

    @abstractmethod
    def missing_files(self, specs: Sequence[InstanceSpec]) -> Sequence[tuple[str, str]]:
        """What is wrong with the files of guests that belong on this host: the guest's name, and that in words."""

    @abstractmethod
    def remove_stray_files(self, name: str) -> None:
        """Remove what `stray_files` found of one; GuestExistsError when the hypervisor knows it after all."""


CAPABILITIES: tuple[type, ...] = (
    Pausable,
    Suspendable,
    Rescuable,
    Resizable,
    LiveMigratable,
    SharesStorage,
    Snapshots,
    AttachesVolumes,
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
)

Capability = TypeVar("Capability")


def require(driver: ComputeDriver, capability: type[Capability]) -> Capability:
    """The driver, seen as `capability`; UnsupportedError when it does not have it."""
    if not isinstance(driver, capability):
        raise UnsupportedError(f"the {driver.name} driver does not support {capability.__name__}")
    return driver


def capabilities_of(driver: ComputeDriver) -> frozenset[str]:
    """The names of the capabilities that this driver has."""
    return frozenset(cap.__name__ for cap in CAPABILITIES if isinstance(driver, cap))
