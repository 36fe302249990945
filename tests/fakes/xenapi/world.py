"""What a pool comes with: hosts, storages, networks and a template."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.fakes.xenapi.database import Database, now
from tests.fakes.xenapi.errors import NULL

if TYPE_CHECKING:
    from tests.fakes.xenapi.pool import Host

GIB = 1 << 30
CPU = {"cpu_count": "8", "socket_count": "1", "threads_per_core": "1", "vendor": "GenuineIntel", "speed": "2400.000",
       "modelname": "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", "family": "6", "model": "79", "stepping": "1",
       "flags": "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat clflush mmx fxsr sse sse2 ht nx lm"
                " sse3 pclmulqdq ssse3 fma cx16 sse4_1 sse4_2 x2apic movbe popcnt aes xsave avx f16c rdrand hypervisor",
       "features": "178bfbff-f7fa3223-2d93fbff-00000023-00000001-000007ab-00000000-00000000-00001000-9c000400",
       "features_hvm": "178bfbff-f7fa3223-2d93fbff-00000023-00000001-000007ab-00000000-00000000-00001000-9c000400",
       "features_hvm_host": "178bfbff-f7fa3223-2d93fbff-00000023-00000001-000007ab-00000000-00000000-00001000-9c000400",
       "features_pv": "178bfbff-f6f83203-2991cbf5-00000023-00000001-00000329-00000000-00000000-00001000-8c000400",
      }  # fmt: skip
VERSION = {"product_brand": "XCP-ng", "product_version": "8.3.0", "product_version_text": "8.3",
           "platform_name": "XCP", "platform_version": "3.4.0", "xapi": "24.19", "xapi_build": "24.19.2",
           "xen": "4.17.5-4", "linux": "4.19.0+1", "hostname": "localhost", "build_number": "cloud"}  # fmt: skip
VM_NEEDS: dict[str, Any] = {
    "user_version": 1, "is_a_template": False, "affinity": NULL, "memory_target": 0, "memory_static_min": 64 << 20,
    "memory_dynamic_min": 512 << 20, "memory_dynamic_max": 512 << 20, "memory_static_max": 512 << 20, "VCPUs_max": 1,
    "VCPUs_at_startup": 1, "actions_after_shutdown": "destroy", "actions_after_reboot": "restart",
    "actions_after_crash": "destroy", "HVM_boot_policy": "BIOS order", "HVM_boot_params": {"order": "cd"},
    "platform": {"acpi": "1", "apic": "true", "pae": "true", "nx": "true", "viridian": "false"}, "domain_type": "hvm",
    "resident_on": NULL, "domid": -1, "power_state": "Halted",
}  # fmt: skip


def populate(db: Database, hosts: list[Host], memory: int, size: int) -> None:
    """Make the records of a pool; hosts get their references and uuids."""
    for host in hosts:
        _add_host(db, host, memory)
    _add_networks(db, hosts)
    for host in hosts:
        sr = add_sr(db, [host.ref], f"local-{host.name}", kind="ext", size=size)
        db.update("host", host.ref, suspend_image_sr=sr, crash_dump_sr=sr)
    shared = add_sr(db, [host.ref for host in hosts], "shared", kind="nfs", size=size)
    add_sr(
        db, [host.ref for host in hosts], "XenServer Tools", kind="iso", size=0, content_type="iso", is_tools_sr=True
    )
    db.create("pool", {"name_label": "pool", "master": hosts[0].ref, "default_SR": shared, "suspend_image_SR": NULL,
                       "crash_dump_SR": NULL, "cpu_info": CPU, "tls_verification_enabled": True})  # fmt: skip
    db.create("VM", VM_NEEDS | {"name_label": "Other install media", "is_a_template": True, "metrics": NULL,
                                "is_default_template": True, "other_config": {"default_template": "true"},
                                "name_description": "For installation from media"})  # fmt: skip


def _add_host(db: Database, host: Host, memory: int) -> None:
    metrics = db.create("host_metrics", {"memory_total": memory, "live": True, "last_updated": now()})
    facts = {
        "name_label": host.name, "hostname": host.name, "address": host.address, "enabled": True, "metrics": metrics,
        "API_version_major": 2, "API_version_minor": 21, "API_version_vendor": "XenSource", "software_version": VERSION,
        "cpu_info": CPU, "capabilities": ["xen-3.0-x86_64", "hvm-3.0-x86_64"], "edition": "xcp-ng",
        "cpu_configuration": {}, "sched_policy": "credit", "iscsi_iqn": f"iqn.2026-01.org.example:{host.name}",
    }  # fmt: skip
    host.ref = db.create("host", facts)
    host.uuid = db.get("host", host.ref)["uuid"]
    for cpu in range(int(CPU["cpu_count"])):
        db.create("host_cpu", {"host": host.ref, "number": cpu, "vendor": CPU["vendor"], "speed": 2400, "family": 6,
                               "modelname": CPU["modelname"], "model": 79, "features": CPU["features"]})  # fmt: skip
    domain = db.create("VM", VM_NEEDS | {"name_label": f"Control domain on host: {host.name}", "power_state": "Running",
                                         "is_control_domain": True, "resident_on": host.ref, "domid": 0,
                                         "affinity": host.ref, "domain_type": "pv", "HVM_boot_policy": "",
                                         "metrics": db.create("VM_metrics", {"hvm": False})})  # fmt: skip
    db.update("host", host.ref, control_domain=domain)


def _add_networks(db: Database, hosts: list[Host]) -> None:
    private = db.create("network", {"name_label": "private", "bridge": "xenbr0", "MTU": 1500})
    db.create("network", {"name_label": "internal", "bridge": "xapi0", "MTU": 1500})
    for number, host in enumerate(hosts):
        db.create("PIF", {"device": "eth0", "network": private, "host": host.ref, "MAC": f"02:00:5e:00:00:{number:02x}",
                          "MTU": 1500, "VLAN": -1, "physical": True, "currently_attached": True, "management": True,
                          "ip_configuration_mode": "Static", "IP": host.address, "netmask": "255.0.0.0"})  # fmt: skip


def add_sr(db: Database, hosts: list[str], name: str, *, kind: str, size: int, **values: Any) -> str:
    """A storage that these hosts are connected to."""
    facts = {"name_label": name, "type": kind, "physical_size": size, "content_type": "user", "shared": len(hosts) > 1}
    ref = db.create("SR", facts | values)
    for host in hosts:
        db.create("PBD", {"host": host, "SR": ref, "device_config": {}, "currently_attached": True})
    return ref
