"""Frozen specs: everything a driver is told about a guest. Drivers never see a database row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_network

from virt.power_state import Power

_NO_PROPERTIES: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """Where an image's bytes come from and what they must be.

    location: absolute path, file://, http:// or https:// URL. sha256: hex digest of those bytes, or None when
    nobody recorded one. disk_format: raw, qcow2, vhd, tar (a container's root), aki (kernel) or ari (ramdisk).
    min_disk_gb: smallest root disk.
    """

    id: int
    name: str
    location: str
    disk_format: str
    sha256: str | None = None
    min_disk_gb: int = 0
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network as a host must provide it: bridge (on a VLAN when `vlan` is set) with its addressing.

    dhcp_server: the address from which each host answers its own guests' DHCP; None: it does not. routing: what hosts
    are to it: `none` (its gateway is something else), `routed` or `nat` (each host is the gateway of its own guests).
    advertised: each host tells its own guests their IPv6 prefix and router.
    """

    id: int
    label: str
    bridge: str
    cidr: str
    gateway: IPv4Address | None = None
    dns: tuple[IPv4Address | IPv6Address, ...] = ()
    dhcp_start: IPv4Address | None = None
    vlan: int | None = None
    bridge_interface: str | None = None
    cidr_v6: str | None = None
    gateway_v6: IPv6Address | None = None
    injected: bool = False
    dhcp_server: IPv4Address | None = None
    routing: str = "none"
    advertised: bool = False

    @property
    def netmask(self) -> str:
        """The IPv4 netmask in dotted form."""
        return str(ip_network(self.cidr).netmask)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vif:
    """One network interface of a guest. addresses and addresses_v6 carry the prefix length.

    filter_name: the hypervisor's filter that it is behind; a driver with a firewall fills it in.
    """

    mac: str
    network: Network
    addresses: tuple[IPv4Interface, ...] = ()
    addresses_v6: tuple[IPv6Interface, ...] = ()
    filter_name: str | None = field(default=None, compare=False)

    @property
    def bridge(self) -> str:
        """The bridge that the host's end of this interface joins."""
        return self.network.bridge

    @property
    def dev(self) -> str:
        """The tap's name on the host: at most 15 characters, derived from the MAC, never `vnet*`."""
        return "tap" + self.mac.replace(":", "")[-11:]


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeAttachment:
    """A volume as one guest sees it.

    device: the mount point asked for (`/dev/vdb`). serial: what the guest can match it by. connection: `protocol`
    (file, block, nbd, iscsi, rbd) and that protocol's own keys. is_root: the guest boots from it.
    """

    attachment_id: int
    volume_id: int
    device: str
    serial: str
    size_gb: int
    connection: Mapping[str, str]
    is_root: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One security-group rule, resolved: `source` is a CIDR, or `group_id` names the member set it follows.

    protocol: tcp, udp, icmp or None for all. Ports (or ICMP type and code) are inclusive, -1 means any.
    """

    protocol: str | None
    from_port: int
    to_port: int
    cidr: str | None = None
    group_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityGroup:
    """A security group with its rules; `members` are the addresses that its group-sourced rules admit, by group."""

    id: int
    name: str
    rules: tuple[Rule, ...] = ()
    members: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceSpec:
    """Everything a driver may know about one guest.

    name is the hypervisor's name (`instance-0000002a`); uuid is the guest's own. Sizes: memory_mb MiB, root_gb and
    ephemeral_gb GiB (0: as large as the image / none), swap_mb MiB. injected_files: (absolute path, content). An
    image beside a root volume lends its kernel, ramdisk and properties, and no bytes. read_at: the monotonic clock (s)
    when this was read; nothing in it is older.
    """

    id: int
    uuid: str
    name: str
    display_name: str
    hostname: str
    project_id: str
    user_id: str
    memory_mb: int
    vcpus: int
    root_gb: int
    ephemeral_gb: int = 0
    swap_mb: int = 0
    flavor: str = ""
    os_type: str | None = None
    epoch: int = 0
    image: ImageSpec | None = None
    kernel: ImageSpec | None = None
    ramdisk: ImageSpec | None = None
    vifs: tuple[Vif, ...] = ()
    volumes: tuple[VolumeAttachment, ...] = ()
    security_groups: tuple[SecurityGroup, ...] = ()
    key_name: str | None = None
    key_data: str | None = None
    user_data: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    injected_files: tuple[tuple[str, bytes], ...] = ()
    admin_password: str | None = field(default=None, repr=False)
    availability_zone: str | None = None
    read_at: float = field(default=0.0, compare=False)

    @property
    def root_volumes(self) -> tuple[VolumeAttachment, ...]:
        """The volume that the guest boots from; none when it has a root disk of its own."""
        return tuple(volume for volume in self.volumes if volume.is_root)

    @property
    def root_image(self) -> ImageSpec | None:
        """The image that the guest's own root disk is made of; None when it has no such disk."""
        return None if self.root_volumes else self.image


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestInfo:
    """Facts about one guest now. Memory in KiB, cpu_time in ns since start, as 2011.2's get_info."""

    power: Power
    max_mem_kb: int
    mem_kb: int
    num_cpu: int
    cpu_time_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestFact:
    """One line of a bulk listing. uuid is None and ours is False for guests that this service did not make."""

    name: str
    power: Power
    uuid: str | None = None
    ours: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class HostResources:
    """What a host has in all, and what its hypervisor and file system say is in use now.

    memory in MiB, disk in GiB; hypervisor_version as the hypervisor encodes it; cpu_info is a JSON object with
    arch, model, vendor, topology{cores,sockets,threads} and features.
    """

    vcpus: int
    memory_mb: int
    local_gb: int
    memory_mb_used: int
    local_gb_used: int
    vcpus_used: int
    hypervisor_type: str
    hypervisor_version: int
    cpu_info: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleAccess:
    """Where a console can be reached, and the one-time token that opens it."""

    host: str
    port: int
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsolePool:
    """How a console proxy reaches this host's consoles."""

    address: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockStats:
    """One disk's counters since the guest started (requests, bytes)."""

    read_requests: int
    read_bytes: int
    write_requests: int
    write_bytes: int
    errors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceStats:
    """One interface's counters since the guest started, seen from the host's end."""

    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_drops: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_drops: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestUsage:
    """What one guest that is on uses. Memory in KiB, cpu_time in ns since its start; devices by the driver's ids.

    Memory is None, and disks are left out, when the guest did not answer.
    """

    name: str
    uuid: str
    power: Power
    vcpus: int
    cpu_time_ns: int
    mem_kb: int | None
    max_mem_kb: int | None
    disks: Mapping[str, BlockStats] = field(default_factory=dict)
    interfaces: Mapping[str, InterfaceStats] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotResult:
    """A finished snapshot: a file on this host that is a complete image by itself."""

    path: str
    disk_format: str
    size_bytes: int
    sha256: str
