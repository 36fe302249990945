"""What domains of every kind are made of: the host's facts, the stamp, disks and interfaces."""

from __future__ import annotations

import re
from dataclasses import dataclass

from virt import configdrive
from virt.libvirt.layout import Layout
from virt.libvirt.xml.console import Vnc
from virt.libvirt.xml.disk import Disk
from virt.libvirt.xml.domain import Cpu
from virt.libvirt.xml.interface import Interface
from virt.libvirt.xml.metadata import Stamp
from virt.spec import InstanceSpec, Vif

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What is the same for every guest of this host.

    type: kvm, qemu, xen, uml, lxc or test. cpu_mode: None for the type's own choice, `none` for the hypervisor's
    default model, `custom` for cpu_model. firmware: bios or uefi, where an image does not say. disk_cache: QEMU's cache
    mode, None for its default. vnc_listen: None for no screen. force_config_drive: every guest has one.
    """

    type: str
    arch: str
    cluster: str
    machine: str = "pc"
    cpu_mode: str | None = None
    cpu_model: str | None = None
    firmware: str = "bios"
    disk_cache: str | None = None
    vnc_listen: str | None = "127.0.0.1"
    vnc_keymap: str | None = "en-us"
    emulator: str | None = None
    force_config_drive: bool = True

    def has_config_drive(self, spec: InstanceSpec) -> bool:
        """True when this guest gets a config drive."""
        return self.force_config_drive or configdrive.has_content(spec)


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


def own_disks(spec: InstanceSpec, layout: Layout, platform: Platform) -> tuple[Disk, ...]:
    """Root, ephemeral and swap disk, as far as the guest has them: vda and on."""
    files = [
        (layout.root, "qcow2", "root", spec.root_image is not None),
        (layout.ephemeral, "raw", "local", spec.ephemeral_gb > 0),
        (layout.swap, "raw", "swap", spec.swap_mb > 0),
    ]
    present = [(path, form, part) for path, form, part, wanted in files if wanted]
    return tuple(
        Disk(
            format=form, cache=platform.disk_cache, discard="unmap", file=str(path), target=f"vd{letter}",
            serial=root_serial(spec, part),
        )
        for letter, (path, form, part) in zip("bcd" if spec.root_volumes else "abc", present, strict=False)
    )  # fmt: skip


def interface_for(vif: Vif) -> Interface:
    """An interface of a guest."""
    return Interface(mac=vif.mac, bridge=vif.bridge, dev=vif.dev, filter=vif.filter_name)


def cpu_for(platform: Platform) -> Cpu | None:
    """The processor that guests see; None: the hypervisor's default, which is the fastest when it emulates."""
    mode = platform.cpu_mode or ("host-model" if platform.type == "kvm" else "none")
    if mode == "none":
        return None
    if mode == "custom":
        return Cpu(mode=mode, match="exact", model=platform.cpu_model, fallback="forbid")
    return Cpu(mode=mode)


def clock_for(spec: InstanceSpec) -> str:
    """What the guest's clock shows at its start."""
    return "localtime" if spec.os_type == "windows" else "utc"


def vnc_for(platform: Platform) -> Vnc | None:
    """The guest's screen, where the host gives them any."""
    if platform.vnc_listen is None:
        return None
    return Vnc(listen=platform.vnc_listen, listen_address=platform.vnc_listen, keymap=platform.vnc_keymap)
