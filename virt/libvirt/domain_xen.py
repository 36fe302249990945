"""Guests of Xen: paravirtual when they bring a kernel, otherwise whole machines."""

from __future__ import annotations

from virt.libvirt.layout import Layout
from virt.libvirt.parts import Platform, clock_for, interface_for, own_disks, stamp_for, vnc_for
from virt.libvirt.volume_disks import volume_disks
from virt.libvirt.xml.console import Console, Video
from virt.libvirt.xml.devices import MemoryBalloon
from virt.libvirt.xml.disk import Disk
from virt.libvirt.xml.domain import Domain
from virt.spec import InstanceSpec


def xen_for(spec: InstanceSpec, layout: Layout, platform: Platform) -> Domain:
    """A guest of Xen. Its disks are xvda and on; what it prints goes to the host's xenconsoled."""
    pv = spec.kernel is not None
    own = own_disks(spec, layout, platform)
    disks = (*own, *volume_disks(spec, own, platform.disk_cache), *_config_drive(spec, layout, platform))
    vnc = None if pv else vnc_for(platform)
    return Domain(
        type="xen",
        name=spec.name,
        uuid=spec.uuid,
        stamp=stamp_for(spec, platform.cluster),
        memory_mb=spec.memory_mb,
        vcpus=spec.vcpus,
        os_type="linux" if pv else "hvm",
        arch=platform.arch,
        machine="xenpv" if pv else "xenfv",
        kernel=str(layout.kernel) if pv else None,
        ramdisk=str(layout.ramdisk) if pv and spec.ramdisk else None,
        cmdline=_cmdline(spec) if pv else None,
        boot=None if pv else "hd",
        acpi=not pv,
        apic=not pv,
        pae=not pv,
        clock=clock_for(spec),
        disks=tuple(_on_xen(disk) for disk in disks),
        interfaces=tuple(interface_for(vif).replace(model=None if pv else "netfront") for vif in spec.vifs),
        consoles=(Console(target_type="xen", port=0),),
        vnc=vnc,
        video=Video(model="vga") if vnc else None,
        balloon=MemoryBalloon(model="xen"),
    )


def _cmdline(spec: InstanceSpec) -> str:
    return "ro root=/dev/xvda console=hvc0" if spec.image or spec.root_volumes else "console=hvc0"


def _on_xen(disk: Disk) -> Disk:
    """The same disk as Xen names it: it knows neither serial numbers nor discard."""
    target = f"x{disk.target}" if disk.target.startswith("vd") else disk.target
    return disk.replace(target=target, bus="xen", serial=None, discard=None)


def _config_drive(spec: InstanceSpec, layout: Layout, platform: Platform) -> tuple[Disk, ...]:
    """The last disk, read-only: a paravirtual guest has no CD drive."""
    if not platform.has_config_drive(spec):
        return ()
    return (Disk(format="raw", file=str(layout.config_drive), target="vdz", readonly=True),)
