"""User-mode Linux, as 2011.2 had it. libvirt dropped its driver in version 5.0: documents only, nothing runs them."""

from __future__ import annotations

from virt.libvirt.layout import Layout
from virt.libvirt.parts import Platform, interface_for, own_disks, stamp_for
from virt.libvirt.volume_disks import volume_disks
from virt.libvirt.xml.console import Console
from virt.libvirt.xml.disk import Disk
from virt.libvirt.xml.domain import Domain
from virt.spec import InstanceSpec

KERNEL = "/usr/bin/linux"


def uml_for(spec: InstanceSpec, layout: Layout, platform: Platform) -> Domain:
    """A guest whose kernel is a program of the host. Its disks are ubda and on."""
    own = own_disks(spec, layout, platform)
    return Domain(
        type="uml",
        name=spec.name,
        uuid=spec.uuid,
        stamp=stamp_for(spec, platform.cluster),
        memory_mb=spec.memory_mb,
        vcpus=spec.vcpus,
        os_type="uml",
        arch=platform.arch,
        kernel=str(layout.kernel) if spec.kernel else KERNEL,
        root="/dev/ubda",
        acpi=False,
        apic=False,
        disks=tuple(_on_uml(disk) for disk in (*own, *volume_disks(spec, own))),
        interfaces=tuple(interface_for(vif).replace(model=None) for vif in spec.vifs),
        consoles=(Console(),),
    )


def _on_uml(disk: Disk) -> Disk:
    """The same disk as a block device that UML makes of a raw file."""
    target = f"ub{disk.target[1:]}"
    return disk.replace(format="raw", target=target, bus="uml", driver=None, serial=None, discard=None, cache=None)
