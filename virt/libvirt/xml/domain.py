"""The domain: everything else goes into it."""

from __future__ import annotations

from virt.libvirt.xml.console import Serial, Video, Vnc
from virt.libvirt.xml.devices import Channel, Controller, MemoryBalloon, Rng
from virt.libvirt.xml.disk import Disk
from virt.libvirt.xml.interface import Interface
from virt.libvirt.xml.metadata import Stamp
from virt.libvirt.xml.node import Node, at


class Cpu(Node):
    """The processor that the guest sees. Without one, the hypervisor's default: the fastest when it emulates."""

    TAG = "cpu"
    mode: str = at("@mode")


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
    os_type: str = at("os/type", default="hvm")
    arch: str = at("os/type/@arch")
    machine: str | None = at("os/type/@machine", default=None)
    kernel: str | None = at("os/kernel", default=None)
    ramdisk: str | None = at("os/initrd", default=None)
    cmdline: str | None = at("os/cmdline", default=None)
    boot: str | None = at("os/boot/@dev", default=None)
    acpi: bool = at("features/acpi", default=True)
    apic: bool = at("features/apic", default=True)
    cpu: Cpu | None = at(".", default=None)
    clock: str = at("clock/@offset", default="utc")
    on_poweroff: str = at("on_poweroff", default="destroy")
    on_reboot: str = at("on_reboot", default="restart")
    on_crash: str = at("on_crash", default="destroy")
    emulator: str | None = at("devices/emulator", default=None)
    disks: tuple[Disk, ...] = at("devices", default=())
    controllers: tuple[Controller, ...] = at("devices", default=())
    interfaces: tuple[Interface, ...] = at("devices", default=())
    serial: Serial | None = at("devices", default=None)
    channels: tuple[Channel, ...] = at("devices", default=())
    vnc: Vnc | None = at("devices", default=None)
    video: Video | None = at("devices", default=None)
    balloon: MemoryBalloon | None = at("devices", default=None)
    rng: Rng | None = at("devices", default=None)
