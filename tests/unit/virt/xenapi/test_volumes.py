"""iSCSI volumes: reached from one host, plugged into one guest, and their secrets kept."""

from __future__ import annotations

import dataclasses

import pytest

from virt.errors import VolumeError
from virt.power_state import Power


@pytest.fixture
def volume(world):
    return world.make_volume()


def repository(world, volume):
    return world.pool.find("SR", name_label=f"volume-{volume.volume_id:08x}")


def with_login(world, volume, secret):
    """The same volume, whose target wants to be logged in to with `right`."""
    portal, iqn, _ = volume.connection["source"].split()
    world.pool.add_target(portal.partition(":")[0], iqn, {"1": 64 << 20}, chap=("user", "right"))
    return dataclasses.replace(volume, connection={**volume.connection, "auth": f"CHAP user {secret}"})


def test_a_volume_is_a_storage_with_one_disk(world, driver, guest, volume):
    driver.attach_volume(guest, volume)
    (sr,) = repository(world, volume)
    (vdi,) = world.pool.record("SR", sr)["VDIs"]
    (vbd,) = world.pool.record("VDI", vdi)["VBDs"]
    assert world.pool.record("VBD", vbd)["userdevice"] == "1"
    assert world.pool.record("VBD", vbd)["currently_attached"]


def test_a_detached_volume_leaves_no_storage(world, driver, guest, volume, ours):
    before = ours()
    driver.attach_volume(guest, volume)
    driver.detach_volume(guest, volume)
    assert ours() == before


def test_the_right_login_is_let_in(world, driver, guest, volume):
    driver.attach_volume(guest, with_login(world, volume, "right"))


def test_a_wrong_login_is_refused_and_the_secret_is_not_told(world, driver, guest, volume, ours):
    before = ours()
    world.pool.faults.fail("PBD.plug", "SR_BACKEND_FAILURE_68", "", "login failed with hunter2", "")
    with pytest.raises(VolumeError, match="SR_BACKEND_FAILURE_68: login failed with \\*\\*\\*") as caught:
        driver.attach_volume(guest, with_login(world, volume, "hunter2"))
    assert "hunter2" not in repr(caught.value.__cause__)
    assert ours() == before


def test_a_login_that_was_changed_is_used_at_the_next_attachment(world, driver, guest, volume):
    with pytest.raises(VolumeError, match="ISCSI login failed"):
        driver.attach_volume(guest, with_login(world, volume, "wrong"))
    driver.attach_volume(guest, with_login(world, volume, "right"))


def test_a_connection_that_a_dead_daemon_left_is_made_anew_and_its_secret_kept(world, driver, guest, volume):
    for call in ("PBD.plug", "PBD.destroy"):
        world.pool.faults.fail(call, "INTERNAL_ERROR", "injected")
    with pytest.raises(VolumeError):
        driver.attach_volume(guest, with_login(world, volume, "wrong"))
    driver.attach_volume(guest, with_login(world, volume, "right"))
    assert "right" not in str(world.pool.records("PBD"))
    assert list(world.pool.secrets.values()) == ["right"]


def test_a_target_that_does_not_answer_is_named(world, driver, guest, volume, ours):
    before = ours()
    lost = dataclasses.replace(volume, connection={"protocol": "iscsi", "source": "192.0.2.9:3260,1 iqn.x:nowhere 1"})
    with pytest.raises(VolumeError, match=f"volume {volume.volume_id}: .*Unable to connect to ISCSI service"):
        driver.attach_volume(guest, lost)
    assert ours() == before


@pytest.mark.parametrize("protocol", ["nbd", "rbd", "file"])
def test_other_protocols_are_refused(driver, guest, volume, protocol):
    source = {"nbd": "//192.0.2.1/export", "rbd": "pool/image", "file": "/volumes/1"}[protocol]
    other = dataclasses.replace(volume, connection={"protocol": protocol, "source": source})
    with pytest.raises(VolumeError, match=f"attaches iscsi volumes, not {protocol}"):
        driver.attach_volume(guest, other)


def test_a_volume_of_another_guest_is_refused(world, driver, guest, volume):
    other = world.make_guest()
    driver.spawn(other)
    driver.attach_volume(guest, volume)
    with pytest.raises(VolumeError, match="another guest has it already"):
        driver.attach_volume(other, volume)


def test_a_guest_that_does_not_let_go_keeps_its_volume(world, driver, guest, volume):
    driver.attach_volume(guest, volume)
    (vdi,) = world.pool.record("SR", repository(world, volume)[0])["VDIs"]
    (vbd,) = world.pool.record("VDI", vdi)["VBDs"]
    world.pool.guest(world.pool.record("VBD", vbd)["VM"]).holds(vbd)
    with pytest.raises(VolumeError, match=r"does not let go of volume .*DEVICE_DETACH_REJECTED"):
        driver.detach_volume(guest, volume)
    assert world.pool.record("VBD", vbd)["currently_attached"]


def test_a_volume_that_could_not_be_plugged_in_is_let_go(world, driver, guest, volume, ours):
    before = ours()
    world.pool.faults.fail("VBD.plug", "DEVICE_ATTACH_TIMEOUT", "VBD", "ref")
    with pytest.raises(VolumeError, match="DEVICE_ATTACH_TIMEOUT"):
        driver.attach_volume(guest, volume)
    assert ours() == before


@pytest.mark.parametrize(("device", "number"), [("/dev/vdb", "1"), ("/dev/vdz", "25"), ("/dev/vdab", "27")])
def test_a_device_has_the_number_of_its_letters(volume, device, number):
    from virt.xenapi.volumes import device_of

    assert device_of(dataclasses.replace(volume, device=device)) == number


def test_a_device_that_xapi_has_not_is_refused(volume):
    from virt.xenapi.volumes import device_of

    with pytest.raises(VolumeError, match="has no device /dev/vdzz"):
        device_of(dataclasses.replace(volume, device="/dev/vdzz"))


def test_a_volume_goes_along_in_a_live_migration(world, driver, volume):
    spec = world.make_guest(volumes=(volume,))
    driver.spawn(spec)
    world.second().pre_live_migration(spec)
    driver.live_migration(spec, "other")
    pbds = [world.pool.record("PBD", pbd) for pbd in world.pool.record("SR", repository(world, volume)[0])["PBDs"]]
    assert [pbd["host"] for pbd in pbds] == [world.pool.hosts[1].ref]


def test_a_guest_whose_volume_is_away_is_not_stopped_for_a_reboot(world, driver, guest, volume):
    world.pool.faults.fail("PBD.plug", "SR_BACKEND_FAILURE_141", "", "Unable to connect", "")
    with pytest.raises(VolumeError, match="Unable to connect"):
        driver.reboot(dataclasses.replace(guest, volumes=(volume,)))
    assert driver.get_info(guest.name).power is Power.RUNNING
