"""What a daemon refuses to start with, and in which words."""

from __future__ import annotations

import pytest

from tests.conformance.targets.xenapi import driver_on
from virt.errors import DriverConfigError, HypervisorUnreachableError
from virt.xenapi.errors import CredentialsError


@pytest.fixture
def start(world, tmp_path):
    """Start another daemon on the pool's first host."""
    made = []

    def begin(host="alpha", name="here", **flags):
        made.append(driver_on(world.pool, tmp_path, host, **flags))
        made[-1].init_host(name)

    yield begin
    for driver in made:
        driver.close()


@pytest.mark.parametrize(("flags", "words"), [
    ({"xenapi_connection_url": "http://192.0.2.1"}, "xenapi_connection_url = http://192.0.2.1: not of the form https"),
    ({"xenapi_connection_url": "192.0.2.1"}, "not of the form https"),
    ({"xenapi_connection_url": None}, "xenapi_connection_url: not set"),
    ({"xenapi_connection_password": None}, "xenapi_connection_password: not set"),
    ({"firewall_driver": "iptables"}, "firewall_driver = iptables: the xenapi driver does not filter ports"),
    ({"xenapi_host": "gamma"}, "xenapi_host = gamma: 0 hosts of the pool are called so, it has alpha, beta"),
    ({"xenapi_host": ""}, "xenapi_host: the pool has 2 hosts"),
    ({"xenapi_template": "Windows 3.11"}, "xenapi_template: the pool has no template called 'Windows 3.11'"),
    ({"xenapi_sr": "nowhere"}, "xenapi_sr: the pool has no storage called 'nowhere'"),
    ({"xenapi_sr": "local-beta"}, "xenapi_sr: host alpha is not connected to local-beta"),
])  # fmt: skip
def test_a_daemon_does_not_start_with_an_option_that_will_not_do(start, flags, words):
    with pytest.raises(DriverConfigError, match=words):
        start(**flags)


def test_a_storage_name_that_two_have_is_refused_with_both(world, start):
    world.pool.add_sr("twins")
    world.pool.add_sr("twins")
    with pytest.raises(DriverConfigError, match="2 of the pool are called 'twins', name the storage by its uuid: "):
        start(xenapi_sr="twins")


def test_a_template_with_disks_is_refused(world, start, guest):
    (vm,) = world.pool.find("VM", name_label=guest.name)
    world.driver.power_off(guest)
    session = world.driver._session
    session.call("VM.set_is_a_template", vm, True)
    with pytest.raises(DriverConfigError, match="has 2 disks, guests bring their own"):
        start(xenapi_template=guest.name)


def test_a_template_of_paravirtual_guests_is_refused(world, start):
    world.pool.add_vm("old Debian", is_a_template=True, HVM_boot_policy="", domain_type="pv")
    with pytest.raises(DriverConfigError, match="xenapi_template: old Debian is for paravirtual guests, ours are HVM"):
        start(xenapi_template="old Debian")


def test_a_daemon_signs_its_host_without_a_hand_on_what_xapi_notes_there(world, start):
    sign = world.pool.record("host", world.pool.hosts[0].ref)["other_config"]
    assert {"nova-compute:conformance": "here"}.items() <= sign.items()
    assert not world.pool.calls_of("host.set_other_config")


def test_a_host_that_another_daemon_serves_is_refused(start):
    with pytest.raises(DriverConfigError, match="host alpha of the pool is served by nova-compute here"):
        start(name="another")


def test_a_wrong_password_ends_the_start(start):
    with pytest.raises(CredentialsError, match="user root is refused: wrong name or password"):
        start(xenapi_connection_password="wrong")


def test_an_expired_certificate_ends_the_start(world, start):
    world.pool.expire_certificate()
    with pytest.raises(HypervisorUnreachableError, match="certificate has expired"):
        start()


def test_a_master_that_does_not_answer_ends_the_start(world, start):
    with world.pool.cut_off(), pytest.raises(HypervisorUnreachableError, match="refused"):
        start()


def test_a_daemon_starts_again_where_it_was(start):
    start()
    start()
