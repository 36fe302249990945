"""The domain: everything else goes into it."""

from __future__ import annotations

from virt.libvirt.xml.console import Console, Serial, Video, Vnc
from virt.libvirt.xml.container import Filesystem, IdMap
from virt.libvirt.xml.devices import Channel, Controller, MemoryBalloon, Rng
from virt.libvirt.xml.disk import Disk
from virt.libvirt.xml.interface import Interface
from virt.libvirt.xml.metadata import Stamp
from virt.libvirt.xml.node import Node, at


class Cpu(Node):
    """The processor that the guest sees; model: its name when mode is `custom`."""

    TAG = "cpu"
    mode: str = at("@mode")
    match: str | None = at("@match", default=None)
    model: str | None = at("model", default=None)
    fallback: str | None = at("model/@fallback", default=None)


class FirmwareFeature(Node):
    """What a firmware must have, or must not."""

    TAG = "feature"
    enabled: str = at("@enabled")
    name: str = at("@name")


class Domain(Node):
    """One guest."""

    TAG = "domain"
    type: str = at("@type")
    name: str = at("name")
    uuid: str = at("uuid")
    stamp: Stamp = at("metadata")
    memory_mb: int = at("memory")
    memory_unit: str = at("memory/@unit", default="MiB")
    vcpus: int = at("vcpu")
    idmap: IdMap | None = at(".", default=None)
    firmware: str | None = at("os/@firmware", default=None)
    os_type: str = at("os/type", default="hvm")
    arch: str = at("os/type/@arch")
    machine: str | None = at("os/type/@machine", default=None)
    firmware_features: tuple[FirmwareFeature, ...] = at("os/firmware", default=())
    nvram: str | None = at("os/nvram", default=None)
    init: str | None = at("os/init", default=None)
    kernel: str | None = at("os/kernel", default=None)
    ramdisk: str | None = at("os/initrd", default=None)
    root: str | None = at("os/root", default=None)
    cmdline: str | None = at("os/cmdline", default=None)
    boot: str | None = at("os/boot/@dev", default=None)
    acpi: bool = at("features/acpi", default=True)
    apic: bool = at("features/apic", default=True)
    pae: bool = at("features/pae", default=False)
    privnet: bool = at("features/privnet", default=False)
    cpu: Cpu | None = at(".", default=None)
    clock: str = at("clock/@offset", default="utc")
    on_poweroff: str = at("on_poweroff", default="destroy")
    on_reboot: str = at("on_reboot", default="restart")
    on_crash: str = at("on_crash", default="destroy")
    emulator: str | None = at("devices/emulator", default=None)
    filesystems: tuple[Filesystem, ...] = at("devices", default=())
    disks: tuple[Disk, ...] = at("devices", default=())
    controllers: tuple[Controller, ...] = at("devices", default=())
    interfaces: tuple[Interface, ...] = at("devices", default=())
    serial: Serial | None = at("devices", default=None)
    consoles: tuple[Console, ...] = at("devices", default=())
    channels: tuple[Channel, ...] = at("devices", default=())
    vnc: Vnc | None = at("devices", default=None)
    video: Video | None = at("devices", default=None)
    balloon: MemoryBalloon | None = at("devices", default=None)
    rng: Rng | None = at("devices", default=None)
