"""Plugging in and out where guests are slow, deaf or gone, and who may have a volume."""

from __future__ import annotations

import pytest
from lxml import etree

from tests.builders import a_guest, a_volume
from virt.errors import DriverTimeoutError, GuestStateError, HypervisorError, VolumeError
from virt.libvirt import devices as module
from virt.libvirt.devices import Devices, View
from virt.libvirt.volume_disks import secret_uuid, volume_disks
from virt.libvirt.volumes import Volumes
from virt.power_state import Power

WITH, WITHOUT = "<devices><disk/></devices>", "<devices/>"


def find(devices):
    return devices.find("disk")


class Domain:
    """Remembers what it was asked to plug in and out."""

    def __init__(self):
        self.done = []

    def attachDeviceFlags(self, _xml, flags):  # noqa: N802 - libvirt's name
        self.done.append(("attach", flags))

    def detachDeviceFlags(self, _xml, flags):  # noqa: N802 - libvirt's name
        self.done.append(("detach", flags))


class Guest(Devices):
    """Devices of one guest that shows these views, the last for ever."""

    def __init__(self, *views, power=Power.RUNNING, error=None):
        super().__init__(self, unplug_timeout_s=0.2)
        self._views, self._power, self._error, self.domain = list(views), power, error, Domain()

    def view(self, _spec):
        return self._views.pop(0) if len(self._views) > 1 else self._views[0]

    def power(self, _spec):
        return self._power

    def ask(self, _spec, work):
        if self._error is not None:
            raise self._error
        return work(self.domain)


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(module, "_POLL_S", 0.01)
    monkeypatch.setattr(module, "_ASK_AGAIN_S", 0.05)


def view(live, defined):
    return View(etree.fromstring(live) if live else None, etree.fromstring(defined))


@pytest.mark.parametrize(
    ("live", "defined", "done"),
    [
        (WITHOUT, WITHOUT, [("attach", 3)]),
        (WITH, WITHOUT, [("attach", 2)]),
        (WITHOUT, WITH, [("attach", 1)]),
        (None, WITHOUT, [("attach", 2)]),
        (WITH, WITH, []),
    ],
)
def test_a_device_is_plugged_in_where_it_is_missing(live, defined, done):
    guest = Guest(view(live, defined))
    guest.plug(a_guest(), guest.view(None), "<disk/>", find)
    assert guest.domain.done == done


def test_a_guest_that_hears_late_is_asked_again_and_then_the_definition_is_changed():
    guest = Guest(*[view(WITH, WITH)] * 8, view(WITHOUT, WITH))
    assert guest.unplug(a_guest(), find) is None
    assert guest.domain.done[0] == ("detach", 1)
    assert guest.domain.done[-1] == ("detach", 2)


def test_a_guest_that_never_lets_go_keeps_the_device_in_its_definition():
    guest = Guest(view(WITH, WITH))
    assert "within 0.2 s" in guest.unplug(a_guest(), find)
    assert set(guest.domain.done) == {("detach", 1)}
    assert len(guest.domain.done) > 1


def test_a_refusal_is_told_and_is_not_the_end():
    guest = Guest(view(WITH, WITH), error=HypervisorError("in the process of unplug"))
    assert "in the process of unplug" in guest.unplug(a_guest(), find)


@pytest.mark.parametrize("error", [HypervisorError("gone"), GuestStateError("off")])
def test_a_guest_that_went_off_meanwhile_has_let_go(error):
    guest = Guest(view(WITH, WITHOUT), view(None, WITHOUT), error=error)
    assert guest.unplug(a_guest(), find) is None


def test_an_unknown_outcome_is_not_taken_for_one():
    with pytest.raises(DriverTimeoutError):
        Guest(view(WITH, WITH), error=DriverTimeoutError("no answer")).unplug(a_guest(), find)


def test_a_paused_guest_is_not_asked():
    guest = Guest(view(WITH, WITH), power=Power.PAUSED)
    assert "paused" in guest.unplug(a_guest(), find)
    assert guest.domain.done == []


def test_two_volumes_of_a_spec_cannot_have_one_device():
    spec = a_guest(volumes=(a_volume(device="/dev/vdb"), a_volume(device="/dev/sdb")))
    with pytest.raises(VolumeError, match="another disk at /dev/sdb"):
        volume_disks(spec, ())


def test_each_guest_and_volume_has_a_secret_of_its_own():
    volume, other = a_volume(), a_volume()
    guest, neighbour = a_guest(), a_guest()
    assert len({secret_uuid(one, two) for one in (guest, neighbour) for two in (volume, other)}) == 4
    assert secret_uuid(guest, volume) == secret_uuid(guest, volume)


def test_a_volume_is_attached_by_one_order_at_a_time():
    volume = a_volume()
    volumes = Volumes(None, None, None)
    with volumes._alone(volume), pytest.raises(VolumeError, match="another order"):
        volumes.attach(a_guest(), volume)
    with volumes._alone(volume):
        pass
