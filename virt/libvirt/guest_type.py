"""Which kind of guest this host can really run."""

from __future__ import annotations

import functools
import logging

from virt.libvirt.kvm_probe import kvm_works

LOG = logging.getLogger(__name__)


@functools.cache
def best_type() -> str:
    """kvm where it was seen to run code at speed, else qemu. Found out once per process, and said once."""
    works, why = kvm_works()
    if works:
        LOG.info("libvirt_type = auto: guests use KVM; %s", why)
        return "kvm"
    LOG.warning("libvirt_type = auto: guests are emulated (qemu), which is slow, because KVM does not work: %s", why)
    return "qemu"
