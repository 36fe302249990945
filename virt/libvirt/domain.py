"""From a spec to a domain: which devices a guest has, and how they are called."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from virt import configdrive
from virt.libvirt.layout import Layout
from virt.libvirt.volume_disks import volume_disks
from virt.libvirt.xml.console import Serial, Video, Vnc
from virt.libvirt.xml.devices import Channel, Controller, MemoryBalloon, Rng
from virt.libvirt.xml.disk import Disk
from virt.libvirt.xml.domain import Cpu, Domain
from virt.libvirt.xml.interface import Interface
from virt.libvirt.xml.metadata import Stamp
from virt.spec import InstanceSpec, Vif

MACHINES = frozenset({"pc", "q35"})
_AGENT = "org.qemu.guest_agent.0"
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What is the same for every guest of this host.

    type: kvm, qemu or test. disk_cache: QEMU's cache mode, None for its default. cpu_mode: None for the
    hypervisor's default model. vnc_listen: None for no screen. force_config_drive: every guest has one.
    """

    type: str
    arch: str
    cluster: str
    machine: str = "pc"
    cpu_mode: str | None = None
    disk_cache: str | None = None
    vnc_listen: str | None = "127.0.0.1"
    vnc_keymap: str | None = "en-us"
    emulator: str | None = None
    force_config_drive: bool = True

    def has_config_drive(self, spec: InstanceSpec) -> bool:
        """True when this guest gets a config drive."""
        return self.force_config_drive or configdrive.has_content(spec)


def domain_for(spec: InstanceSpec, layout: Layout, platform: Platform) -> Domain:
    """The domain of a guest whose files are in `layout`."""
    return Domain(
        type=platform.type,
        name=spec.name,
        uuid=spec.uuid,
        stamp=stamp_for(spec, platform.cluster),
        memory_mb=spec.memory_mb,
        vcpus=spec.vcpus,
        arch=platform.arch,
        machine=_machine(spec, platform),
        kernel=str(layout.kernel) if spec.kernel else None,
        ramdisk=str(layout.ramdisk) if spec.kernel and spec.ramdisk else None,
        cmdline=_cmdline(spec) if spec.kernel else None,
        boot=None if spec.kernel else "hd",
        cpu=Cpu(mode=platform.cpu_mode) if platform.cpu_mode else None,
        clock="localtime" if spec.os_type == "windows" else "utc",
        emulator=platform.emulator,
        disks=(*_own_and_volumes(spec, layout, platform), *_config_drive(spec, layout, platform)),
        controllers=_controllers(spec, platform),
        interfaces=tuple(interface_for(vif) for vif in spec.vifs),
        serial=Serial(log_file=str(layout.console_log), log_append="on"),
        channels=(Channel(name=_AGENT),),
        vnc=_vnc(platform),
        video=Video(model="vga" if platform.vnc_listen else "none"),
        balloon=MemoryBalloon(stats_period_s=10),
        rng=Rng(),
    )


def rescue_domain_for(spec: InstanceSpec, rescue: InstanceSpec, layout: Layout, platform: Platform) -> Domain:
    """The domain of a guest that boots `rescue`'s images, with its own root as the next disk and nothing else of it."""
    bare = replace(
        spec, image=rescue.image, kernel=rescue.kernel, ramdisk=rescue.ramdisk, ephemeral_gb=0, swap_mb=0, volumes=()
    )
    rescued = domain_for(bare, layout.rescue, platform)
    count = 1 if rescue.image else 0
    boots = tuple(disk.replace(serial=root_serial(spec, "rescue")) for disk in rescued.disks[:count])
    own = _disks(spec, layout, platform)[:1] if spec.image else ()
    beside = tuple(disk.replace(target="vdb" if boots else "vda") for disk in own)
    return rescued.replace(disks=(*boots, *beside, *rescued.disks[count:]))


def stamp_for(spec: InstanceSpec, cluster: str) -> Stamp:
    """What says that this guest is ours."""
    name, project = printable(spec.display_name), printable(spec.project_id)
    return Stamp(cluster=cluster, uuid=spec.uuid, name=name, project=project, epoch=spec.epoch)


def printable(text: str) -> str:
    """`text` without the characters that no XML document may have."""
    return _NOT_XML.sub("\ufffd", text)


def root_serial(spec: InstanceSpec, part: str) -> str:
    """What a guest can match one of its own disks by: at most 20 characters, the same at every start."""
    return f"{spec.uuid.replace('-', '')[:12]}-{part}"


def _machine(spec: InstanceSpec, platform: Platform) -> str | None:
    if platform.type == "test":
        return None
    asked = spec.image.properties.get("hw_machine_type", "") if spec.image else ""
    return asked if asked in MACHINES else platform.machine


def _cmdline(spec: InstanceSpec) -> str:
    return "root=/dev/vda console=ttyS0" if spec.image else "console=ttyS0"


def _disks(spec: InstanceSpec, layout: Layout, platform: Platform) -> tuple[Disk, ...]:
    files = [
        (layout.root, "qcow2", "root", spec.image is not None),
        (layout.ephemeral, "raw", "local", spec.ephemeral_gb > 0),
        (layout.swap, "raw", "swap", spec.swap_mb > 0),
    ]
    present = [(path, form, part) for path, form, part, wanted in files if wanted]
    return tuple(
        Disk(
            format=form, cache=platform.disk_cache, discard="unmap", file=str(path), target=f"vd{letter}",
            serial=root_serial(spec, part),
        )
        for letter, (path, form, part) in zip("abc", present, strict=False)
    )  # fmt: skip


def _own_and_volumes(spec: InstanceSpec, layout: Layout, platform: Platform) -> tuple[Disk, ...]:
    own = _disks(spec, layout, platform)
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
    usb = Controller(type="usb", model="none")
    if platform.has_config_drive(spec) and _cd_bus(spec, platform) == "scsi":
        return (usb, Controller(type="scsi", model="virtio-scsi"))
    return (usb,)


def interface_for(vif: Vif) -> Interface:
    """An interface of a guest."""
    return Interface(mac=vif.mac, bridge=vif.bridge, dev=vif.dev)


def _vnc(platform: Platform) -> Vnc | None:
    if platform.vnc_listen is None:
        return None
    return Vnc(listen=platform.vnc_listen, listen_address=platform.vnc_listen, keymap=platform.vnc_keymap)
