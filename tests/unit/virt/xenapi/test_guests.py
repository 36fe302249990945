"""Guests are listed in one call at any number, and found whatever they are labelled."""

from __future__ import annotations

import time

import pytest

from virt.errors import GuestNotFoundError, HypervisorUnreachableError
from virt.power_state import Power
from virt.xenapi.stamps import Role

THOUSAND = 1000


def calls_of(world, work):
    """What is called while some work is done."""
    before = len(world.pool.calls)
    work()
    return [call.method for call in world.pool.calls[before:]]


@pytest.fixture
def crowd(world):
    """A thousand VMs of this installation on the first host, and a few of others."""
    host = world.pool.hosts[0]
    for number in range(THOUSAND):
        name = f"guest-{number}"
        stamp = {"nova-cluster": "conformance", "nova-uuid": name, "nova-name": name, "nova-host": host.uuid}
        world.pool.add_vm(name, uuid=name, other_config=stamp | {"nova-vm": name})
    return world


def test_a_thousand_guests_are_listed_in_one_call(crowd):
    listed = []
    assert calls_of(crowd, lambda: listed.extend(crowd.driver.list_guests())) == ["event.from"]
    assert len(listed) == THOUSAND
    assert all(fact.ours and fact.power is Power.SHUTOFF for fact in listed)


def test_what_has_not_changed_is_not_told_again(crowd, monkeypatch):
    guests, told = crowd.driver._parts.guests, []
    crowd.driver.list_guests()
    ask = guests._events
    monkeypatch.setattr(guests, "_events", lambda *words: told.append(answer := ask(*words)) or answer)
    assert calls_of(crowd, crowd.driver.list_guests) == ["event.from"]
    assert [answer["events"] for answer in told] == [[]]


def test_a_change_is_in_the_next_listing(world, driver, guest):
    driver.list_guests()
    world.shut_down_inside(guest.name)
    assert {fact.name: fact.power for fact in driver.list_guests()}[guest.name] is Power.SHUTOFF


def test_everything_is_listed_anew_now_and_then(world, driver, guest):
    driver.list_guests()
    driver._parts.guests._listed_at -= 3600
    assert calls_of(world, driver.list_guests) == ["VM.get_all_records", "event.from"]
    assert calls_of(world, driver.list_guests) == ["event.from"]


def test_a_missed_event_is_noticed_by_the_number_of_vms(world, driver, guest):
    driver.list_guests()
    driver._parts.guests._records.popitem()
    assert calls_of(world, driver.list_guests) == ["event.from", "VM.get_all_records"]
    assert guest.name in {fact.name for fact in driver.list_guests()}


def test_lost_events_begin_a_new_listing(world, driver, guest):
    driver.list_guests()
    world.pool.faults.fail("event.from", "EVENTS_LOST")
    assert calls_of(world, driver.list_guests) == ["event.from", "event.from"]
    assert guest.name in {fact.name for fact in driver.list_guests()}


def test_a_half_made_guest_is_not_listed(world, driver):
    seen = []

    def look(step):
        seen.extend(fact.name for fact in driver.list_guests())

    spec = world.make_guest()
    driver.spawn(spec, look)
    assert set(seen) <= {spec.name}


def test_the_control_domain_templates_and_snapshots_are_no_guests(world, driver, guest):
    (ref,) = world.pool.find("VM", name_label=guest.name)
    driver._session.call("VM.snapshot", ref, "by hand")
    assert [fact.name for fact in driver.list_guests()] == [guest.name]


def test_a_guest_that_an_operator_has_renamed_is_still_found(world, driver, guest):
    (ref,) = world.pool.find("VM", name_label=guest.name)
    driver._session.call("VM.set_name_label", ref, "the web server")
    assert driver.get_info(guest.name).power is Power.RUNNING
    assert guest.name in {fact.name for fact in driver.list_guests()}


def test_a_guest_belongs_to_the_host_that_it_runs_on(world, driver, guest):
    (ref,) = world.pool.find("VM", name_label=guest.name)
    driver._session.run("VM.pool_migrate", ref, world.pool.hosts[1].ref, {}, timeout_s=5)
    with pytest.raises(GuestNotFoundError):
        driver.get_info(guest.name)
    assert world.second().get_info(guest.name).power is Power.RUNNING


def test_no_answer_is_not_an_empty_list(world, driver, guest):
    driver.list_guests()
    with world.pool.cut_off(), pytest.raises(HypervisorUnreachableError):
        driver.list_guests()


def test_the_resources_of_a_host_cost_the_same_at_any_number(crowd):
    crowd.driver.host_resources()
    assert len(calls_of(crowd, crowd.driver.host_resources)) == 5


def test_a_watcher_is_told_of_its_guests_alone(world, driver, guest):
    heard = []
    driver.watch(heard.append)
    foreign = world.pool.add_vm("somebody-elses")
    driver._session.run("VM.start", foreign, False, False, timeout_s=5)
    driver.pause(guest)
    deadline = time.monotonic() + 5
    while guest.uuid not in heard and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(heard) == {None, guest.uuid}


def copied(world, guest):
    """What an operator makes of a guest that is off: the same stamps, another VM with disks of its own."""
    world.driver.power_off(guest)
    (ref,) = world.pool.find("VM", name_label=guest.name)
    return world.driver._session.call("VM.clone", ref, guest.name)


@pytest.mark.parametrize("kind", ["VM", "VDI"])
def test_what_others_note_on_a_guest_and_its_disks_outlives_a_reboot_and_a_resize(world, driver, guest, kind):
    label = guest.name if kind == "VM" else f"{guest.name} root"
    (ref,) = world.pool.find(kind, name_label=label)
    driver._session.call(f"{kind}.add_to_other_config", ref, "folder", "/lab")
    driver.reboot(guest)
    driver.migrate_disk_and_power_off(guest, "other")
    driver.revert_resize(guest)
    config = world.pool.record(kind, ref)["other_config"]
    assert config["folder"] == "/lab"
    assert "nova-stage" not in config


def test_a_copy_that_an_operator_put_on_another_storage_outlives_its_guest(world, driver, guest):
    (root,) = world.pool.find("VDI", name_label=f"{guest.name} root")
    driver.power_off(guest)
    copy = driver._session.call("VDI.copy", root, world.pool.local_sr("alpha"))
    driver.destroy(guest)
    assert world.pool.record("VDI", copy)["managed"]


def test_an_operators_copy_of_a_guest_is_nobody_of_ours(world, driver, guest):
    copied(world, guest)
    assert [fact.ours for fact in driver.list_guests() if fact.name == guest.name].count(True) == 1


def test_a_guest_keeps_its_own_disks_beside_a_copy_of_them(world, driver, guest):
    (vdi,) = world.pool.find("VDI", name_label=f"{guest.name} root")
    copied(world, guest)
    driver.power_on(guest)
    assert [world.pool.record("VBD", vbd)["currently_attached"] for vbd in world.pool.record("VDI", vdi)["VBDs"]] == [
        True
    ]


def test_a_copy_survives_the_end_of_its_original(world, driver, guest):
    copy = copied(world, guest)
    driver.destroy(guest)
    vbds = [world.pool.record("VBD", vbd) for vbd in world.pool.record("VM", copy)["VBDs"]]
    assert len(vbds) == 2
    assert all(world.pool.record("VDI", vbd["VDI"])["managed"] for vbd in vbds)


@pytest.mark.parametrize("kind", ["VM", "VDI"])
def test_an_operators_snapshot_of_a_guest_is_not_taken_for_it(world, driver, guest, kind):
    (vdi,) = world.pool.find("VDI", name_label=f"{guest.name} root")
    (vm,) = world.pool.find("VM", name_label=guest.name)
    for _ in range(2):
        driver._session.call(*(("VM.snapshot", vm, guest.name) if kind == "VM" else ("VDI.snapshot", vdi, {})))
    assert list(driver._parts.builder.disks.find(guest, Role.ROOT)) == [vdi]
    driver.reboot(guest)
    assert [world.pool.record("VBD", vbd)["currently_attached"] for vbd in world.pool.record("VDI", vdi)["VBDs"]] == [
        True
    ]
