"""Flags that choose the kind of guest, its CPU and its files."""

from __future__ import annotations

import dataclasses

import pytest
from oslo_config import cfg

from tests.builders import a_guest, an_image
from tests.unit.virt.libvirt.test_xml import KVM, LXC, QEMU, document
from virt import conf as virt_conf
from virt.connection import get_connection
from virt.disk import Disks
from virt.driver import no_progress
from virt.errors import DriverConfigError
from virt.firewall import conf as firewall_conf
from virt.images import ImageCache
from virt.libvirt import conf as libvirt_conf
from virt.libvirt.build import Builder
from virt.libvirt.driver import LibvirtDriver
from virt.libvirt.guest_type import check_type, uri_of
from virt.libvirt.lxc import LxcDriver
from virt.libvirt.parts import cpu_for
from virt.libvirt.settings import platform_of


@pytest.fixture
def conf(tmp_path):
    made = cfg.ConfigOpts()
    made([], project="test")
    own = {"state_path": str(tmp_path), "compute_driver": "libvirt", "host": "here"}
    made.register_opts([cfg.StrOpt(name, default=default) for name, default in own.items()])
    for module in (virt_conf, libvirt_conf, firewall_conf):
        made.register_opts(module.OPTS)
    return made


@pytest.mark.parametrize(
    ("kind", "uri"),
    [("auto", "qemu"), ("kvm", "qemu"), ("qemu", "qemu"), ("xen", "xen"), ("lxc", "lxc"), ("uml", "uml")],
)
def test_each_kind_of_guest_has_its_libvirt(kind, uri):
    assert uri_of(kind) == f"{uri}:///system"


@pytest.mark.parametrize(("kind", "made"), [("lxc", LxcDriver), ("xen", LibvirtDriver), ("qemu", LibvirtDriver)])
def test_the_kind_of_guest_chooses_the_driver(conf, kind, made):
    conf.set_override("libvirt_type", kind)
    driver = get_connection(conf)
    driver.close()
    assert type(driver) is made


@pytest.mark.parametrize(("mode", "model"), [("custom", ""), ("", "Haswell"), ("host-model", "Haswell")])
def test_a_cpu_model_goes_with_the_mode_custom_alone(conf, mode, model):
    conf.set_override("libvirt_cpu_mode", mode)
    conf.set_override("libvirt_cpu_model", model)
    with pytest.raises(DriverConfigError, match=r"libvirt_cpu_model = .*custom"):
        get_connection(conf)


@pytest.mark.parametrize(("asked", "cache"), [("", None), ("none", "none")])
def test_a_flag_says_how_the_host_caches_disks(conf, asked, cache):
    conf.set_override("libvirt_disk_cache", asked)
    (root, *_) = document(dataclasses.replace(platform_of(conf), type="qemu", arch="x86_64")).disks
    assert root.cache == cache


@pytest.mark.parametrize(
    ("platform", "hypervisor", "reason"),
    [
        (QEMU, "LXC", "libvirt_type = qemu: libvirt_uri leads to LXC, not to QEMU"),
        (LXC, "QEMU", "libvirt_type = lxc: libvirt_uri leads to QEMU, not to LXC"),
        (dataclasses.replace(QEMU, cpu_mode="host-passthrough"), "QEMU", "host-passthrough: needs kvm"),
    ],
)
def test_what_this_host_cannot_run_is_refused(platform, hypervisor, reason):
    with pytest.raises(DriverConfigError, match=reason):
        check_type(platform, hypervisor)


def test_what_goes_together_is_accepted():
    check_type(QEMU, "QEMU")
    check_type(LXC, "LXC")
    check_type(dataclasses.replace(KVM, cpu_mode="host-passthrough"), "QEMU")
    check_type(dataclasses.replace(QEMU, type="test"), "TEST")


def test_the_host_s_cpu_is_what_kvm_shows_and_emulation_does_not():
    assert cpu_for(dataclasses.replace(KVM, cpu_mode=None)).mode == "host-model"
    assert cpu_for(dataclasses.replace(KVM, cpu_mode="none")) is None
    assert cpu_for(QEMU) is None


def test_an_image_cannot_choose_a_firmware_outside_the_closed_set():
    assert document(image=an_image(properties={"hw_firmware_type": "/evil.fd"})).firmware is None
    uefi = dataclasses.replace(QEMU, firmware="uefi")
    assert document(uefi, image=an_image(properties={"hw_firmware_type": "bios"})).firmware is None
    assert document(uefi, image=an_image(properties={"hw_firmware_type": "?"})).firmware == "efi"


def test_user_mode_linux_gets_a_raw_root(tmp_path):
    (tmp_path / "image").write_bytes(bytes(1024**2))
    builder = Builder(tmp_path / "instances", ImageCache(tmp_path / "cache", tmp_path), Disks(), raw=True)
    builder.prepare()
    layout = builder.make(a_guest(image=an_image(location=str(tmp_path / "image")), vifs=()), no_progress)
    assert Disks().virtual_size(layout.root, "raw") == 1024**3
    assert layout.root.read_bytes()[:4] != b"QFI\xfb"
