"""What a host of the pool has and uses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from virt.spec import HostResources
from virt.xenapi.guests import Guests
from virt.xenapi.helper import HelperBase, Record
from virt.xenapi.pool import Place
from virt.xenapi.session import Session

_GIB, _MIB = 1024**3, 1024**2
_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")
_ARCHITECTURES = ("x86_64", "x86_32")


class Resources(HelperBase):
    """Counts one host: its CPUs and memory, and the storage that its guests' disks are in."""

    def __init__(self, session: Session, guests: Guests, place: Place) -> None:
        super().__init__(session)
        self._guests, self._place = guests, place

    def host_resources(self) -> HostResources:
        """Four calls at any number of guests, and a fifth that brings the list of them up to date."""
        host = self.call("host.get_record", self._place.host.ref)
        metrics = self.call("host_metrics.get_record", host["metrics"])
        storage = self.call("SR.get_record", self._place.sr)
        total = int(metrics["memory_total"])
        free = int(self.call("host.compute_free_memory", self._place.host.ref))
        return HostResources(
            vcpus=int(host["cpu_info"].get("cpu_count") or len(host["host_CPUs"])),
            memory_mb=total // _MIB,
            memory_mb_used=(total - min(free, total)) // _MIB,
            local_gb=max(0, int(storage["physical_size"])) // _GIB,
            local_gb_used=max(0, min(int(storage["physical_utilisation"]), int(storage["physical_size"]))) // _GIB,
            vcpus_used=self._guests.vcpus_used(),
            hypervisor_type="xen",
            hypervisor_version=version_number(host["software_version"]),
            cpu_info=cpu_info(host),
        )


def version_number(software: dict[str, str]) -> int:
    """Xen's version as major * 1000000 + minor * 1000 + release, the product's where Xen's is not told."""
    for key in ("xen", "product_version"):
        if found := _VERSION.match(software.get(key, "")):
            major, minor, release = (int(part or 0) for part in found.groups())
            return major * 1_000_000 + minor * 1000 + release
    return 1


def cpu_info(host: Record) -> str:
    """The CPU as JSON; its features are the words, in hexadecimal, that xapi tells them by."""
    facts: dict[str, str] = host["cpu_info"]
    capabilities = " ".join(host["capabilities"])
    sockets = max(1, int(facts.get("socket_count") or 1))
    threads = max(1, int(facts.get("threads_per_core") or 1))
    cpus = int(facts.get("cpu_count") or 1)
    return json.dumps(
        {
            "arch": next((arch for arch in _ARCHITECTURES if arch in capabilities), _ARCHITECTURES[0]),
            "model": facts.get("modelname", ""),
            "vendor": facts.get("vendor", ""),
            "topology": {"sockets": sockets, "cores": max(1, cpus // sockets // threads), "threads": threads},
            "features": (facts.get("features_hvm") or facts.get("features") or "").split("-"),
        },
        sort_keys=True,
    )


def cpu_words(features: Iterable[str]) -> list[int]:
    """Feature words as numbers. Raises ValueError."""
    return [int(word or "0", 16) for word in features]
