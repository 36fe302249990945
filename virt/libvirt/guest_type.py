"""Which kind of guest this host runs, and which libvirt it asks for that."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping

from virt.errors import DriverConfigError
from virt.libvirt.kvm_probe import kvm_works
from virt.libvirt.parts import Platform

LOG = logging.getLogger(__name__)

URIS: Mapping[str, str] = {"xen": "xen:///system", "lxc": "lxc:///system", "uml": "uml:///system"}
_HYPERVISORS = {"kvm": "QEMU", "qemu": "QEMU", "xen": "Xen", "lxc": "LXC", "uml": "UML"}


@functools.cache
def best_type() -> str:
    """kvm where it was seen to run code at speed, else qemu. Found out once per process, and said once."""
    works, why = kvm_works()
    if works:
        LOG.info("libvirt_type = auto: guests use KVM; %s", why)
        return "kvm"
    LOG.warning("libvirt_type = auto: guests are emulated (qemu), which is slow, because KVM does not work: %s", why)
    return "qemu"


def real_type(asked: str) -> str:
    """The type that `libvirt_type` means on this host."""
    return best_type() if asked == "auto" else asked


def uri_of(kind: str) -> str:
    """Where libvirt keeps guests of this type."""
    return URIS.get(kind, "qemu:///system")


def check_type(platform: Platform, hypervisor: str) -> None:
    """Raise DriverConfigError when the hypervisor that answers cannot run such guests, or not as the flags say."""
    wanted = _HYPERVISORS.get(platform.type)
    if wanted is not None and hypervisor.lower() != wanted.lower():
        raise DriverConfigError(f"libvirt_type = {platform.type}: libvirt_uri leads to {hypervisor}, not to {wanted}")
    if platform.cpu_mode == "host-passthrough" and platform.type != "kvm":
        raise DriverConfigError(f"libvirt_cpu_mode = host-passthrough: needs kvm, and guests are {platform.type}")
