"""Domain XML: golden, valid by libvirt's own schema, and no declared property goes unexercised."""

from __future__ import annotations

import dataclasses
import functools
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path

import pytest
from lxml import etree

from tests.builders import a_guest, a_network, a_vif, a_volume, an_image
from virt.errors import DiskError
from virt.libvirt.domain import Platform, domain_for, rescue_domain_for
from virt.libvirt.layout import Layout
from virt.libvirt.xml.backup import Backup, BackupDisk
from virt.libvirt.xml.console import Serial
from virt.libvirt.xml.disk import Disk
from virt.libvirt.xml.domain import Domain
from virt.libvirt.xml.interface import FilterParameter, Interface
from virt.libvirt.xml.metadata import NAMESPACE, Stamp
from virt.libvirt.xml.node import Node
from virt.libvirt.xml.secret import Secret

GOLDEN = Path(__file__).resolve().parents[3] / "golden/libvirt"
SCHEMAS = Path("/usr/share/libvirt/schemas")
INSTANCES = Path("/var/lib/micronova/instances")
UUID = "8a1f2b3c-0000-4000-8000-00000000002a"
QEMU = Platform(type="qemu", arch="x86_64", cluster="test")
KVM = Platform(type="kvm", arch="x86_64", cluster="test", machine="q35", cpu_mode="host-model", disk_cache="none",
               emulator="/usr/bin/qemu-system-x86_64")  # fmt: skip
XEN, UML, LXC = (dataclasses.replace(QEMU, type=kind) for kind in ("xen", "uml", "lxc"))
KERNEL = {
    "kernel": an_image(id=2, name="kernel", disk_format="aki"),
    "ramdisk": an_image(id=3, name="ramdisk", disk_format="ari"),
}


def spec(**changes):
    vif = a_vif(mac="02:16:3e:00:00:2a", network=a_network(), addresses=(IPv4Interface("10.0.0.3/24"),))
    return a_guest(**({"id": 42, "uuid": UUID, "vifs": (vif,)} | changes))


def document(platform=QEMU, **changes):
    guest = spec(**changes)
    return domain_for(guest, Layout.of(INSTANCES, guest.name), platform)


def rescued(rescue_changes, platform=QEMU, **changes):
    guest = spec(**changes)
    return rescue_domain_for(guest, spec(**rescue_changes), Layout.of(INSTANCES, guest.name), platform)


def dual_stack(number, **changes):
    """An interface on a network with gateways of both families."""
    network = a_network(id=number, gateway_v6=IPv6Address("fd00::1"), cidr_v6="fd00::/64")
    six = (IPv6Interface(f"fd00::{number + 2}/64"),)
    four = (IPv4Interface(f"10.0.0.{number + 2}/24"),)
    mac = f"02:16:3e:00:00:{number:02x}"
    return a_vif(**({"mac": mac, "network": network, "addresses": four, "addresses_v6": six} | changes))


def volume(number, protocol, source, **connection):
    return a_volume(
        attachment_id=number, volume_id=number, serial=f"vol-{number:08x}", device=f"/dev/vd{chr(ord('a') + number)}",
        connection={"protocol": protocol, "source": source, **connection},
    )  # fmt: skip


VOLUMES = (
    volume(1, "file", "/volumes/1"),
    volume(2, "block", "/dev/disk/by-id/wwn-0x5000"),
    volume(3, "nbd", "//[fd00::3]:10810/export"),
    volume(4, "nbd", "///export?socket=/run/nbd.sock"),
    volume(
        5, "iscsi", "10.0.0.5:3260,1 iqn.2010-10.org.openstack:volume-00000005 1", auth="CHAP user s3cret:with space"
    ),
    volume(6, "rbd", "//mon1,[fd00::6]:6790/pool/image", auth="CEPHX cinder a2V5"),
)
DOCUMENTS = {
    "disk": document(image=an_image(disk_format="qcow2")),
    "kernel": document(**KERNEL, ephemeral_gb=2, swap_mb=64),
    "kernel-alone": document(image=None, **KERNEL, vifs=()),
    "kvm": document(KVM, vcpus=4, memory_mb=2048, os_type="windows"),
    "no-screen": document(dataclasses.replace(QEMU, vnc_listen=None)),
    "q35-image": document(image=an_image(properties={"hw_machine_type": "q35"})),
    "volumes": document(volumes=VOLUMES),
    "volumes-cached": document(KVM, volumes=VOLUMES[:1]),
    "rescue": rescued({}, image=an_image(disk_format="qcow2"), volumes=VOLUMES, ephemeral_gb=2, swap_mb=64),
    "rescue-kernel": rescued(KERNEL, **KERNEL),
    "rescue-kernel-alone": rescued({"image": None, **KERNEL}),
    "no-config-drive": document(dataclasses.replace(QEMU, force_config_drive=False)),
    "uefi": document(image=an_image(disk_format="qcow2", properties={"hw_firmware_type": "uefi"})),
    "uefi-rescue": rescued({}, dataclasses.replace(QEMU, firmware="uefi", machine="q35")),
    "cpu-custom": document(dataclasses.replace(QEMU, cpu_mode="custom", cpu_model="Haswell-noTSX")),
    "cpu-passthrough": document(dataclasses.replace(QEMU, type="kvm", cpu_mode="host-passthrough")),
    "xen-hvm": document(XEN, image=an_image(disk_format="qcow2"), swap_mb=64, volumes=VOLUMES[1:2]),
    "xen-pv": document(XEN, **KERNEL, volumes=VOLUMES[:1]),
    "xen-rescue": rescued(KERNEL, XEN, **KERNEL),
    "uml": document(UML, swap_mb=64, volumes=VOLUMES[1:2]),
    "uml-kernel": document(UML, kernel=KERNEL["kernel"]),
    "lxc": document(LXC),
    "lxc-networks": document(LXC, vifs=(dual_stack(1), dual_stack(2))),
    "lxc-alone": document(dataclasses.replace(LXC, force_config_drive=False), vifs=()),
}
# Properties that no guest of this slice has, so that no document above shows them.
EXTRA = Domain(
    **{f.name: getattr(DOCUMENTS["disk"], f.name) for f in dataclasses.fields(Domain)}
    | {
        "disks": (Disk(format="raw", file="/config", target="vdd"),),
        "interfaces": (
            Interface(mac="02:16:3e:00:00:01", bridge="br100", dev="tap1", filter="nova-instance-1",
                      filter_parameters=(FilterParameter(name="IP", value="10.0.0.3"),)),
        ),
        "serial": Serial(),
    }
)  # fmt: skip

# What is handed to libvirt by itself, and the schema that it must match.
PARTS = {
    "secret-iscsi": (Secret(uuid=UUID, usage="iscsi", target="micronova-g-1"), "secret"),
    "secret-ceph": (Secret(uuid=UUID, usage="ceph", name="micronova-g-1"), "secret"),
    "backup": (Backup(disks=(BackupDisk(name="vda", target="/instances/g/disk.snapshot"),)), "domainbackup"),
}


PARTS_ALONE = tuple(part for part, _ in PARTS.values())


@functools.cache
def schema(name="domain"):
    return etree.RelaxNG(etree.parse(SCHEMAS / f"{name}.rng"))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_domain_is_the_one_that_was_reviewed(golden, name):
    golden(f"libvirt/{name}.xml", DOCUMENTS[name].xml())


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_the_one_that_was_reviewed(golden, name):
    golden(f"libvirt/{name}.xml", PARTS[name][0].xml())


@pytest.mark.skipif(not SCHEMAS.exists(), reason="libvirt's schemas are not installed")
@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_valid_by_libvirts_own_schema(name):
    part, schema_name = PARTS[name]
    schema(schema_name).assertValid(etree.fromstring(part.xml()))


@pytest.mark.skipif(not SCHEMAS.exists(), reason="libvirt's schemas are not installed")
@pytest.mark.parametrize("domain", [*DOCUMENTS.values(), EXTRA], ids=[*DOCUMENTS, "extra"])
def test_a_domain_is_valid_by_libvirts_own_schema(domain):
    document = etree.fromstring(domain.xml())
    if domain.os_type == "uml":  # the one word that the schema has lost, with libvirt's driver for it
        document.find("os/type").text = "linux"
    schema().assertValid(document)


def test_every_document_that_was_reviewed_is_still_made():
    reviewed = {path.stem for path in GOLDEN.glob("*.xml")}
    assert reviewed == {*DOCUMENTS, *PARTS}


def is_absent(value):
    return value is None or value is False or value == ()


def test_every_declared_property_is_exercised():
    seen: dict[type[Node], set[str]] = {}
    for node in [node for domain in (*DOCUMENTS.values(), EXTRA, *PARTS_ALONE) for node in domain.nodes()]:
        names = {name for name in node.paths() if not is_absent(getattr(node, name))}
        seen.setdefault(type(node), set()).update(names)
    unused = {kind.__name__: kind.paths().keys() - seen.get(kind, set()) for kind in Node.__subclasses__()}
    assert {kind: names for kind, names in unused.items() if names} == {}


def test_what_is_absent_leaves_no_trace():
    element = Disk(format="raw", file="/d", target="vda").element()
    assert [child.tag for child in element] == ["driver", "source", "target"]
    assert element.find("driver").attrib == {"name": "qemu", "type": "raw"}


def test_a_users_text_cannot_break_the_document():
    hostile = document(display_name="<&\"'>\x00\x1b\ud800 客", project_id="]]>")
    stamp = etree.fromstring(hostile.xml()).find(f"metadata/{{{NAMESPACE}}}instance")
    assert stamp.get("name") == "<&\"'>\ufffd\ufffd\ufffd 客"
    assert stamp.get("project") == "]]>"


def test_a_stamp_is_read_back():
    stamp = Stamp(cluster="c", uuid=UUID, name="näme", project="p", epoch=7)
    assert Stamp.read(stamp.xml()) == stamp


@pytest.mark.parametrize(
    "text", [None, "", "<x", "<instance cluster='c'/>", "<!DOCTYPE x [<!ENTITY e 'e'>]><x>&e;</x>"]
)
def test_what_is_no_stamp_is_none(text):
    assert Stamp.read(text) is None


def test_a_guest_with_something_to_read_has_a_config_drive_where_they_are_not_forced():
    assert document(dataclasses.replace(QEMU, force_config_drive=False), key_data="k").disks[-1].device == "cdrom"


def test_an_image_cannot_choose_a_machine_outside_the_closed_set():
    assert document(image=an_image(properties={"hw_machine_type": "pc-0.1 evil"})).machine == "pc"


@pytest.mark.parametrize("name", ["../etc", "a/b", "", ".", "..", "x" * 64, "a\n"])
def test_a_guest_cannot_be_called_a_path(name):
    with pytest.raises(DiskError):
        Layout.of(Path("/instances"), name)
