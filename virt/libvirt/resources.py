"""What this host has and uses."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from lxml import etree

from virt.libvirt.domains import Domains
from virt.libvirt.host import Connection, Host
from virt.spec import HostResources

_GIB = 1024**3
_PROBE_S = 120.0  # libvirt runs every QEMU it finds before it first describes the host


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What does not change while libvirt runs."""

    arch: str
    vcpus: int
    hypervisor_type: str
    hypervisor_version: int
    cpu_info: str


def host_facts(host: Host) -> HostFacts:
    """Ask libvirt about the machine."""

    def work(connection: Connection) -> HostFacts:
        arch, cpu_info = read_cpu(connection.getCapabilities())
        return HostFacts(arch, connection.getInfo()[2], connection.getType(), connection.getVersion(), cpu_info)

    return host.call("(resources)", work, _PROBE_S)


def host_resources(facts: HostFacts, domains: Domains, instances_path: Path) -> HostResources:
    """The facts with what is in use now."""
    disk = os.statvfs(instances_path)
    memory_mb, memory_mb_used = memory()
    return HostResources(
        vcpus=facts.vcpus,
        memory_mb=memory_mb,
        local_gb=disk.f_blocks * disk.f_frsize // _GIB,
        memory_mb_used=memory_mb_used,
        local_gb_used=(disk.f_blocks - disk.f_bfree) * disk.f_frsize // _GIB,
        vcpus_used=domains.vcpus_used(),
        hypervisor_type=facts.hypervisor_type,
        hypervisor_version=facts.hypervisor_version,
        cpu_info=facts.cpu_info,
    )


def memory(meminfo: Path = Path("/proc/meminfo")) -> tuple[int, int]:
    """MiB of memory in all, and those of them that are neither free nor could be in a moment."""
    sizes_kb = {}
    for line in meminfo.read_text().splitlines():
        name, _, rest = line.partition(":")
        sizes_kb[name] = int(rest.split()[0])
    free = sizes_kb["MemFree"] + sizes_kb["Buffers"] + sizes_kb["Cached"]
    return sizes_kb["MemTotal"] // 1024, max(0, sizes_kb["MemTotal"] - free) // 1024


def read_cpu(capabilities: str) -> tuple[str, str]:
    """The host's architecture, and its CPU as JSON, from libvirt's capabilities."""
    cpu = etree.fromstring(capabilities).find("host/cpu")
    if cpu is None:
        return "", "{}"
    arch = cpu.findtext("arch", "")
    topology = cpu.find("topology")
    info = {
        "arch": arch,
        "model": cpu.findtext("model", ""),
        "vendor": cpu.findtext("vendor", ""),
        "topology": {key: int(topology.get(key, 1)) if topology is not None else 1
                     for key in ("cores", "sockets", "threads")},
        "features": sorted(feature.get("name", "") for feature in cpu.findall("feature")),
    }  # fmt: skip
    return arch, json.dumps(info, sort_keys=True)
