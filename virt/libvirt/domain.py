"""From a spec to a domain: one function for each kind of guest, and the machine that QEMU makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from virt.libvirt.domain_lxc import container_for
from virt.libvirt.domain_uml import uml_for
from virt.libvirt.domain_xen import xen_for
from virt.libvirt.layout import Layout
from virt.libvirt.parts import (
    Platform,
    clock_for,
    cpu_for,
    interface_for,
    own_disks,
    printable,
    root_serial,
    stamp_for,
    vnc_for,
)
from virt.libvirt.volume_disks import volume_disks
from virt.libvirt.xml.console import Serial, Video
from virt.libvirt.xml.devices import Channel, Controller, MemoryBalloon, Rng
from virt.libvirt.xml.disk import Disk
from virt.libvirt.xml.domain import Domain, FirmwareFeature
from virt.spec import InstanceSpec

__all__ = ["Platform", "domain_for", "interface_for", "printable", "rescue_domain_for", "root_serial", "stamp_for"]

MACHINES = frozenset({"pc", "q35"})
FIRMWARES = frozenset({"bios", "uefi"})
_AGENT = Channel(name="org.qemu.guest_agent.0")
_BALLOON = MemoryBalloon(stats_period_s=10)
_RNG = Rng()
_NO_USB = Controller(type="usb", model="none")
_SCSI = Controller(type="scsi", model="virtio-scsi")
_ON_PORTS = frozenset({"virtio", "scsi"})  # a CD's SCSI controller is on one, too
_ALWAYS_ON_PORTS = 3  # the agent's channel, the balloon, the source of randomness
_FREE_PORTS = 8
_PLAIN_UEFI = (FirmwareFeature(enabled="no", name="enrolled-keys"), FirmwareFeature(enabled="no", name="secure-boot"))


def domain_for(spec: InstanceSpec, layout: Layout, platform: Platform) -> Domain:
    """The domain of a guest whose files are in `layout`."""
    return _KINDS.get(platform.type, machine_for)(spec, layout, platform)


def machine_for(spec: InstanceSpec, layout: Layout, platform: Platform) -> Domain:
    """A machine that QEMU makes, with KVM or without."""
    has_uefi = _has_uefi(spec, platform)
    disks = (*_own_and_volumes(spec, layout, platform), *_config_drive(spec, layout, platform))
    return Domain(
        type=platform.type,
        name=spec.name,
        uuid=spec.uuid,
        stamp=stamp_for(spec, platform.cluster),
        memory_mb=spec.memory_mb,
        vcpus=spec.vcpus,
        arch=platform.arch,
        machine=_machine(spec, platform),
        firmware="efi" if has_uefi else None,
        firmware_features=_PLAIN_UEFI if has_uefi else (),
        nvram=str(layout.nvram) if has_uefi else None,
        kernel=str(layout.kernel) if spec.kernel else None,
        ramdisk=str(layout.ramdisk) if spec.kernel and spec.ramdisk else None,
        cmdline=_cmdline(spec) if spec.kernel else None,
        boot=None if spec.kernel else "hd",
        cpu=cpu_for(platform),
        clock=clock_for(spec),
        emulator=platform.emulator,
        disks=disks,
        controllers=(*_controllers(spec, platform), *_ports(spec, platform, disks)),
        interfaces=tuple(interface_for(vif) for vif in spec.vifs),
        serial=Serial(log_file=str(layout.console_log), log_append="on"),
        channels=(_AGENT,),
        vnc=vnc_for(platform),
        video=Video(model="vga" if platform.vnc_listen else "none"),
        balloon=_BALLOON,
        rng=_RNG,
    )


_KINDS: Mapping[str, Callable[[InstanceSpec, Layout, Platform], Domain]] = {
    "xen": xen_for,
    "uml": uml_for,
    "lxc": container_for,
}


def rescue_domain_for(spec: InstanceSpec, rescue: InstanceSpec, layout: Layout, platform: Platform) -> Domain:
    """The domain of a guest that boots `rescue`'s images, with its own root as the next disk and nothing else of it."""
    bare = replace(
        spec, image=rescue.image, kernel=rescue.kernel, ramdisk=rescue.ramdisk, ephemeral_gb=0, swap_mb=0, volumes=()
    )
    rescued = domain_for(bare, layout.rescue, platform)
    count = 1 if rescue.image else 0
    boots = tuple(_with_serial(disk, root_serial(spec, "rescue")) for disk in rescued.disks[:count])
    whole = domain_for(replace(spec, ephemeral_gb=0, swap_mb=0, volumes=spec.root_volumes), layout, platform)
    own = whole.disks[:1] if spec.image or spec.root_volumes else ()
    beside = tuple(disk.replace(target=disk.target[:-1] + ("b" if boots else "a")) for disk in own)
    return rescued.replace(disks=(*boots, *beside, *rescued.disks[count:]))


def _with_serial(disk: Disk, serial: str) -> Disk:
    return disk.replace(serial=serial) if disk.serial else disk


def _machine(spec: InstanceSpec, platform: Platform) -> str | None:
    if platform.type == "test":
        return None
    asked = spec.image.properties.get("hw_machine_type", "") if spec.image else ""
    return asked if asked in MACHINES else platform.machine


def _has_uefi(spec: InstanceSpec, platform: Platform) -> bool:
    asked = spec.image.properties.get("hw_firmware_type", "") if spec.image else ""
    return (asked if asked in FIRMWARES else platform.firmware) == "uefi"


def _cmdline(spec: InstanceSpec) -> str:
    return "root=/dev/vda console=ttyS0" if spec.image or spec.root_volumes else "console=ttyS0"


def _own_and_volumes(spec: InstanceSpec, layout: Layout, platform: Platform) -> tuple[Disk, ...]:
    own = own_disks(spec, layout, platform)
    return (*own, *volume_disks(spec, own, platform.disk_cache))


def _config_drive(spec: InstanceSpec, layout: Layout, platform: Platform) -> tuple[Disk, ...]:
    """A CD: it takes no name from the virtio disks, so volumes are called in the guest what users asked for."""
    if not platform.has_config_drive(spec):
        return ()
    bus = _cd_bus(spec, platform)
    target = "hda" if bus == "ide" else "sda"
    return (Disk(device="cdrom", format="raw", file=str(layout.config_drive), target=target, bus=bus, readonly=True),)


def _cd_bus(spec: InstanceSpec, platform: Platform) -> str:
    """Where a CD is found without more drivers: kernels for clouds have none for SATA, Windows none for virtio."""
    if _machine(spec, platform) != "q35":
        return "ide"
    return "sata" if spec.os_type == "windows" else "scsi"


def _controllers(spec: InstanceSpec, platform: Platform) -> tuple[Controller, ...]:
    if platform.has_config_drive(spec) and _cd_bus(spec, platform) == "scsi":
        return (_NO_USB, _SCSI)
    return (_NO_USB,)


def _ports(spec: InstanceSpec, platform: Platform, disks: tuple[Disk, ...]) -> tuple[Controller, ...]:
    """What q35 plugs PCI devices into: a port for each that is there, and some for those that come while it runs.

    By itself libvirt leaves a single one free.
    """
    if _machine(spec, platform) != "q35":
        return ()
    taken = sum(disk.bus in _ON_PORTS for disk in disks) + len(spec.vifs) + _ALWAYS_ON_PORTS
    port = Controller(type="pci", model="pcie-root-port")
    return (Controller(type="pci", model="pcie-root"), *(port,) * (taken + _FREE_PORTS))
