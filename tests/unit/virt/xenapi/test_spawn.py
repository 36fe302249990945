"""What a guest is made of, and what is left when it cannot be made."""

from __future__ import annotations

import dataclasses
import subprocess

import pytest

from tests.builders import a_network, a_vif, an_image
from tests.integration.processes import require_program
from virt.errors import DiskFullError, HypervisorError, ImageError, NetworkError, VolumeError
from virt.power_state import Power

MIB = 1024**2


def vm_of(world, spec):
    (ref,) = world.pool.find("VM", name_label=spec.name)
    return world.pool.record("VM", ref)


def disk_of(world, spec, device="0"):
    vbds = [world.pool.record("VBD", vbd) for vbd in vm_of(world, spec)["VBDs"]]
    (vdi,) = [vbd["VDI"] for vbd in vbds if vbd["userdevice"] == device]
    return world.pool.record("VDI", vdi)


def content(world, spec, length, device="0"):
    return world.pool.disks.read(disk_of(world, spec, device)["uuid"], 0, length)


@pytest.fixture
def vhd(world):
    """A dynamic VHD whose disk begins with a few words."""
    require_program("qemu-img")
    raw, made = world.folder / "source.raw", world.folder / "image.vhd"
    raw.write_bytes(b"this was a VHD".ljust(MIB, b"\0") + bytes(MIB))
    command = ["qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", "force_size=on", str(raw), str(made)]
    subprocess.run(command, check=True)
    return an_image(location=str(made), disk_format="vhd")


def test_a_raw_image_is_on_the_root_disk(world, guest):
    assert content(world, guest, 7) == b"\xeb\x3c\x90boot"
    assert int(disk_of(world, guest)["virtual_size"]) == guest.root_gb * 1024 * MIB


def test_a_vhd_image_is_on_the_root_disk(world, driver, vhd):
    spec = world.make_guest(image=vhd)
    driver.spawn(spec)
    assert content(world, spec, 14) == b"this was a VHD"


def test_a_vhd_with_a_parent_is_refused_before_it_leaves(world, driver, vhd):
    data = bytearray((world.folder / "image.vhd").read_bytes())
    data[60:64] = (4).to_bytes(4, "big")
    (world.folder / "image.vhd").write_bytes(data)
    with pytest.raises(ImageError, match="only dynamic VHDs are supported, this one is of type 4"):
        driver.spawn(world.make_guest(image=vhd))
    assert not world.pool.calls_of("PUT /import_raw_vdi")


@pytest.mark.parametrize("form", ["qcow2", "aki"])
def test_an_image_of_a_kind_that_a_pool_does_not_take_is_refused(world, driver, form):
    with pytest.raises(ImageError, match=f"is {form}; xenapi takes raw and vhd"):
        driver.spawn(world.make_guest(image=an_image(disk_format=form)))


def test_a_kernel_beside_the_disk_is_refused(world, driver):
    with pytest.raises(ImageError, match="not from a kernel beside it"):
        driver.spawn(world.make_guest(kernel=an_image(disk_format="aki")))


def test_a_guest_has_its_disks_in_order(world, driver):
    spec = world.make_guest(ephemeral_gb=2, swap_mb=64)
    driver.spawn(spec)
    sizes = [int(disk_of(world, spec, device)["virtual_size"]) // MIB for device in "012"]
    assert sizes == [1024, 2048, 64]


def test_a_guest_has_a_config_drive(world, guest):
    assert b"config-2" in content(world, guest, 64 * 1024, device="15")


def test_an_interface_is_locked_to_its_addresses(world, guest):
    (vif,) = [world.pool.record("VIF", ref) for ref in vm_of(world, guest)["VIFs"]]
    assert (vif["locking_mode"], vif["MAC"]) == ("locked", guest.vifs[0].mac)
    assert vif["ipv4_allowed"] == [str(guest.vifs[0].addresses[0].ip)]


def test_a_guest_of_ipv6_may_speak_to_its_neighbours(world, driver):
    from ipaddress import IPv6Interface

    vif = dataclasses.replace(world.make_vif(), addresses_v6=(IPv6Interface("fd00::5/64"),), mac="02:16:3e:00:00:01")
    spec = world.make_guest(vifs=(vif,))
    driver.spawn(spec)
    (record,) = [world.pool.record("VIF", ref) for ref in vm_of(world, spec)["VIFs"]]
    assert record["ipv6_allowed"] == ["fd00::5", "fe80::16:3eff:fe00:1"]


def test_a_changed_address_is_locked_at_the_next_hard_reboot(world, driver, guest):
    moved = dataclasses.replace(guest.vifs[0], addresses=a_vif().addresses)
    driver.reboot(dataclasses.replace(guest, vifs=(moved,)))
    (vif,) = [world.pool.record("VIF", ref) for ref in vm_of(world, guest)["VIFs"]]
    assert vif["ipv4_allowed"] == [str(moved.addresses[0].ip)]


def test_every_object_says_whose_it_is(world, guest):
    for record in (vm_of(world, guest), disk_of(world, guest), disk_of(world, guest, "15")):
        config = record["other_config"]
        assert (config["nova-uuid"], config["nova-cluster"]) == (guest.uuid, "conformance")
        assert config["nova-host"] == world.pool.hosts[0].uuid


def test_a_clone_whose_answer_was_lost_makes_no_second_vm(world, driver, ours):
    world.pool.faults.lose_reply("VM.clone")
    spec = world.make_guest()
    driver.spawn(spec)
    assert ours()["VM"] == [spec.name]
    assert len(world.pool.calls_of("VM.clone")) == 1


def test_what_a_killed_daemon_left_unfinished_is_removed_by_the_next_spawn(world, driver, ours):
    class KilledError(BaseException):
        pass

    def die(step):
        if step == "connecting disks and networks":
            world.pool.faults.drop_request("VM.get_by_name_label", times=None)
            raise KilledError

    spec = world.make_guest()
    with pytest.raises(KilledError):
        driver.spawn(spec, die)
    world.pool.faults.clear()
    assert ours()["VM"] == [f"{spec.name} {spec.uuid} (unfinished)"]
    driver.spawn(spec)
    assert (ours()["VM"], len(ours()["VDI"])) == ([spec.name], 2)


def test_a_full_storage_is_said_so_and_nothing_is_left(world, driver, ours):
    world.pool.fill(world.pool.shared_sr)
    with pytest.raises(DiskFullError, match="SR_BACKEND_FAILURE_44"):
        driver.spawn(world.make_guest())
    assert ours() == {}


def test_a_network_name_that_two_have_is_refused_with_both(world, driver, ours):
    world.pool.add_network("twins")
    world.pool.add_network("twins")
    spec = world.make_guest(vifs=(a_vif(network=a_network(bridge="twins")),))
    with pytest.raises(NetworkError, match=r"2 networks of the pool are called 'twins': .+, "):
        driver.spawn(spec)
    assert ours() == {}


def test_a_network_that_the_pool_has_not_is_named(world, driver):
    spec = world.make_guest(vifs=(a_vif(network=a_network(label="dmz", bridge="br-dmz")),))
    with pytest.raises(NetworkError, match="network dmz: the pool has no network of bridge or name 'br-dmz'"):
        driver.spawn(spec)


def test_a_network_is_found_by_its_label_where_no_bridge_is_called_so(world, driver):
    spec = world.make_guest(vifs=(a_vif(network=a_network(label="private", bridge="br100")),))
    driver.spawn(spec)
    assert driver.get_info(spec.name).power is Power.RUNNING


def test_a_template_that_went_away_is_named(world, driver, ours):
    world.driver._session.call("VM.set_name_label", world.pool.template, "renamed")
    with pytest.raises(HypervisorError, match="the pool has no template called 'Other install media'"):
        driver.spawn(world.make_guest())
    assert ours() == {}


def test_a_foreign_vm_of_the_same_name_is_not_touched(world, driver):
    spec = world.make_guest()
    foreign = world.pool.add_vm(spec.name)
    driver.spawn(spec)
    driver.destroy(spec)
    assert world.pool.record("VM", foreign)["name_label"] == spec.name


def test_another_installations_guest_is_not_touched(world, driver, guest):
    (ref,) = world.pool.find("VM", name_label=guest.name)
    config = world.pool.record("VM", ref)["other_config"]
    driver._session.call("VM.set_other_config", ref, config | {"nova-cluster": "another"})
    driver.destroy(guest)
    assert world.pool.record("VM", ref)["power_state"] == "Running"


def test_a_volume_of_the_guest_survives_its_end(world, driver):
    volume = world.make_volume()
    spec = world.make_guest(volumes=(volume,))
    driver.spawn(spec)
    driver.destroy(spec)
    assert not world.pool.calls_of("SR.destroy")
    assert world.pool.find("SR", name_label=f"volume-{volume.volume_id:08x}") == []


def test_firmware_is_what_the_image_asks_for(world, driver):
    spec = world.make_guest()
    image = dataclasses.replace(spec.image, properties={"hw_firmware_type": "uefi"})
    driver.spawn(dataclasses.replace(spec, image=image))
    assert vm_of(world, spec)["HVM_boot_params"] == {"order": "c", "firmware": "uefi"}


def test_a_volume_at_the_device_of_a_disk_is_refused_in_words(world, driver, ours):
    spec = world.make_guest(ephemeral_gb=1, volumes=(world.make_volume(device="/dev/vdb"),))
    with pytest.raises(VolumeError, match="has another disk at /dev/vdb"):
        driver.spawn(spec)
    assert ours() == {}


def test_a_firmware_that_there_is_not_is_refused_before_anything_is_made(world, driver, ours):
    image = dataclasses.replace(world.make_guest().image, properties={"hw_firmware_type": "openfirmware"})
    with pytest.raises(ImageError, match="asks for hw_firmware_type 'openfirmware', there are bios and uefi"):
        driver.spawn(world.make_guest(image=image))
    assert not world.pool.calls_of("VDI.create")
    assert ours() == {}


def test_more_interfaces_than_xapi_allows_are_refused_in_words(world, driver):
    spec = world.make_guest(vifs=tuple(world.make_vif() for _ in range(7)))
    driver.spawn(spec)
    with pytest.raises(NetworkError, match="the VM has as many interfaces as xapi allows"):
        driver.attach_nic(spec, world.make_vif())


def test_what_xapi_has_not_measured_yet_is_no_diagnostic(driver, guest):
    found = driver.get_diagnostics(guest)
    assert "runstate_blocked" not in found
    assert found["memory"] == guest.memory_mb << 20
