"""The driver on libvirt's test hypervisor: what is left when something fails, and whose guests are whose."""

from __future__ import annotations

import dataclasses
import logging

import pytest
from oslo_config import cfg

from tests.builders import a_guest, a_vif, a_volume, an_image
from tests.conformance.targets.libvirt_test import NoBridges
from virt import configdrive
from virt.connection import get_connection
from virt.disk import Disks
from virt.errors import (
    DiskError,
    DriverConfigError,
    GuestExistsError,
    GuestNotFoundError,
    GuestStateError,
    ImageError,
    NetworkError,
    VirtError,
    VolumeError,
)
from virt.firewall.noop import NoopFirewall
from virt.images import ImageCache
from virt.libvirt.build import Builder
from virt.libvirt.domains import Domains
from virt.libvirt.driver import LibvirtDriver
from virt.power_state import Power

STEPS = [
    (Domains, "refuse_foreign"),
    (ImageCache, "provide"),
    (Disks, "create_overlay"),
    (Disks, "create_empty"),
    (Disks, "create_swap"),
    (Builder, "write_config_drive"),
    (NoopFirewall, "setup_basic_filtering"),
    (NoopFirewall, "prepare_instance_filter"),
    (Domains, "boot"),
    (NoopFirewall, "apply_instance_filter"),
]


def full_guest(world, **changes):
    kernel = an_image(id=2, name="kernel", location=str(world.images / "root"), disk_format="aki")
    return world.make_guest(**({"kernel": kernel, "ephemeral_gb": 1, "swap_mb": 1} | changes))


class Filters(NoopFirewall):
    """Remembers whose filters are in place."""

    def __init__(self):
        self.names = set()

    def prepare_instance_filter(self, spec):
        self.names.add(spec.name)

    def unfilter_instance(self, spec):
        self.names.discard(spec.name)


@pytest.fixture
def filters(world):
    world.driver._firewall = Filters()
    return world.driver._firewall


@pytest.mark.parametrize(("owner", "method"), STEPS, ids=[method for _, method in STEPS])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_spawn_that_fails_at_any_step_leaves_nothing(world, filters, monkeypatch, owner, method, when):
    owner = Filters if owner is NoopFirewall else owner
    real = getattr(owner, method)

    def fail(*args, **kwargs):
        if when == "after":
            real(*args, **kwargs)
        raise VirtError("no")

    monkeypatch.setattr(owner, method, fail)
    spec = full_guest(world)
    with pytest.raises(VirtError, match=r"^no$"):
        world.driver.spawn(spec)
    assert (world.leftovers(spec), filters.names) == ([], set())


def test_a_spawn_whose_network_cannot_be_had_leaves_nothing(world, filters, monkeypatch):
    def fail(_self, _network, _claim):
        raise NetworkError("no bridge")

    monkeypatch.setattr(NoBridges, "ensure", fail)
    spec = world.make_guest(vifs=(a_vif(),))
    with pytest.raises(NetworkError, match="no bridge"):
        world.driver.spawn(spec)
    assert (world.leftovers(spec), filters.names) == ([], set())


def test_what_cannot_be_taken_back_does_not_hide_what_went_wrong(world, monkeypatch, caplog):
    spec = world.make_guest()

    def fail(_self, _spec):
        raise VirtError("cannot unfilter")

    monkeypatch.setattr(Disks, "create_overlay", lambda *_args: 1 / 0)
    monkeypatch.setattr(NoopFirewall, "unfilter_instance", fail)
    world.driver._clear_the_place = lambda _spec: None
    with pytest.raises(ZeroDivisionError):
        world.driver.spawn(spec)
    assert "cannot unfilter" in caplog.text
    assert world.driver._builder.is_half_made(spec.name)


@pytest.mark.parametrize("last", ["making disks", "starting", "started"])
def test_a_spawn_starts_over_what_a_crash_left(world, monkeypatch, last):
    spec = full_guest(world)

    def crash(step):
        if step == last:
            raise KeyboardInterrupt

    monkeypatch.setattr(LibvirtDriver, "_take_back", lambda *_args: None)
    with pytest.raises(KeyboardInterrupt):
        world.driver.spawn(spec, crash)
    assert world.leftovers(spec) != []
    world.driver.spawn(spec)
    assert world.driver.get_info(spec.name).power is Power.RUNNING


def test_a_guest_that_was_finished_is_not_started_over(world):
    spec = world.make_guest()
    world.driver.spawn(spec)
    world.driver.power_off(spec)
    with pytest.raises(GuestExistsError):
        world.driver.spawn(spec)
    assert world.leftovers(spec) == ["domain", spec.name]


def test_a_foreign_guest_of_that_name_is_neither_replaced_nor_destroyed(world):
    spec = world.make_guest(name=world.make_foreign_guest())
    with pytest.raises(GuestExistsError):
        world.driver.spawn(spec)
    world.driver.destroy(spec)
    assert world.leftovers(spec) == ["domain"]


def test_a_foreign_guest_of_that_name_is_no_fact_about_ours(world):
    name = world.make_foreign_guest()
    world.connection.lookupByName(name).create()
    with pytest.raises(GuestNotFoundError, match="somebody else's of this name"):
        world.driver.get_info(name)


def test_a_foreign_guest_of_that_uuid_is_neither_replaced_nor_destroyed(world):
    foreign = world.connection.lookupByName(world.make_foreign_guest())
    spec = world.make_guest(uuid=foreign.UUIDString())
    with pytest.raises(GuestExistsError, match="not ours"):
        world.driver.spawn(spec)
    world.driver.destroy(spec)
    assert "somebody-elses" in [domain.name() for domain in world.connection.listAllDomains()]


def test_another_clusters_guest_is_foreign(world):
    spec = world.make_guest()
    world.driver.spawn(spec)
    others = Domains(world.host, "another cluster")
    assert [fact.ours for fact in others.list_guests() if fact.name == spec.name] == [False]


def test_a_listing_takes_two_calls_however_many_guests(world, monkeypatch):
    for _ in range(5):
        world.driver.spawn(world.make_guest())
    world.driver.list_guests()
    asked = []
    monkeypatch.setattr("virt.libvirt.host.metadata_of", lambda *args: asked.append(args))
    assert sum(fact.ours for fact in world.driver.list_guests()) == 5
    assert asked == []


def test_an_image_larger_than_the_root_disk_is_refused(world):
    with (world.images / "root").open("r+b") as file:
        file.truncate(1024**3 + 1024**2)
    with pytest.raises(ImageError, match=r"virtual size, 1 GiB, exceeds root_gb=1"):
        world.driver.spawn(world.make_guest(root_gb=1))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": None, "kernel": None}, "nothing to boot from"),
        ({"image": an_image(disk_format="aki")}, "not a disk"),
        ({"kernel": an_image(disk_format="raw")}, "not a kernel"),
        ({"image": an_image(min_disk_gb=5), "root_gb": 1}, "needs 5 GiB"),
    ],
)
def test_images_of_the_wrong_kind_are_refused_before_anything_is_made(world, changes, reason):
    with pytest.raises(ImageError, match=reason):
        world.driver.spawn(world.make_guest(**changes))


def test_a_root_disk_is_grown_to_the_flavor(world):
    spec = world.make_guest(root_gb=3)
    world.driver.spawn(spec)
    assert Disks().virtual_size(world.instances / spec.name / "disk", "qcow2") == 3 * 1024**3


def test_a_reboot_of_an_absent_guest_prepares_nothing(world, filters):
    with pytest.raises(VirtError):
        world.driver.reboot(world.make_guest())
    assert filters.names == set()


def test_a_reboot_defines_the_guest_anew(world):
    spec = world.make_guest()
    world.driver.spawn(spec)
    world.driver.reboot(dataclasses.replace(spec, memory_mb=128))
    assert world.driver.get_info(spec.name).max_mem_kb == 128 * 1024


@pytest.fixture
def conf(tmp_path):
    made = cfg.ConfigOpts()
    made([], project="test")
    made.register_opts(
        [cfg.StrOpt("state_path", default=str(tmp_path)), cfg.StrOpt("compute_driver", default="libvirt")]
    )
    LibvirtDriver.from_conf(made)
    made.set_override("libvirt_uri", "test:///default")
    return made


def test_the_flag_makes_the_driver(conf, tmp_path):
    driver = get_connection(conf)
    driver.init_host("here")
    assert [fact.name for fact in driver.list_guests()] == ["test"]
    assert (tmp_path / "instances").stat().st_mode & 0o777 == 0o711


@pytest.mark.parametrize(
    ("option", "value"),
    [("instances_path", "relative"), ("images_path", "x"), ("vncserver_host", "192.0.2.1"), ("vncserver_host", "name")],
)
def test_nonsense_is_named(conf, option, value):
    conf.set_override(option, value)
    with pytest.raises(DriverConfigError, match=f"^{option} = "):
        get_connection(conf)


def test_a_place_that_cannot_be_written_is_named(conf, tmp_path):
    (tmp_path / "file").touch()
    conf.set_override("instances_path", str(tmp_path / "file/instances"))
    with pytest.raises(DriverConfigError, match="instances_path"):
        get_connection(conf).init_host("here")


def test_a_guest_is_told_of_in_one_line(world, caplog):
    caplog.set_level(logging.INFO, "virt.libvirt")
    spec = world.make_guest()
    world.driver.spawn(spec)
    assert [record.getMessage() for record in caplog.records] == [f"guest {spec.name}: started"]


def test_a_full_disk_is_a_disk_error(world, monkeypatch):
    monkeypatch.setattr(Disks, "create_swap", lambda *_args: (_ for _ in ()).throw(DiskError("full")))
    with pytest.raises(DiskError):
        world.driver.spawn(full_guest(world))


def drive(world, spec):
    return world.instances / spec.name / "disk.config"


def test_a_config_drive_follows_the_spec_whenever_the_guest_is_defined(world):
    spec = world.make_guest(hostname="alpha")
    world.driver.spawn(spec)
    assert drive(world, spec).read_bytes() == configdrive.image(spec)
    for verb, hostname in (("reboot", "beta"), ("power_on", "gamma")):
        renamed = dataclasses.replace(spec, hostname=hostname)
        getattr(world.driver, verb)(renamed)
        assert drive(world, spec).read_bytes() == configdrive.image(renamed)
        world.driver.power_off(spec)
    assert drive(world, spec).stat().st_mode & 0o777 == 0o600
    world.driver.destroy(spec)
    assert world.leftovers(spec) == []


def test_a_guest_that_goes_on_from_memory_keeps_its_config_drive(world):
    spec = world.make_guest()
    world.driver.spawn(spec)
    world.driver.suspend(spec)
    renamed = dataclasses.replace(spec, hostname="renamed")
    world.driver.inject_network_info(renamed)
    world.driver.power_on(renamed)
    assert drive(world, spec).read_bytes() == configdrive.image(spec)


@pytest.mark.parametrize("verb", ["resume", "power_on"])
def test_a_guest_does_not_go_on_from_memory_without_its_volume(world, verb):
    spec = world.make_guest()
    world.driver.spawn(spec)
    world.driver.suspend(spec)
    volume = a_volume(connection={"protocol": "file", "source": "/nowhere"})
    with pytest.raises(VolumeError, match="/nowhere: No such file"):
        getattr(world.driver, verb)(dataclasses.replace(spec, volumes=(volume,)))
    assert world.driver.get_info(spec.name).power is Power.SUSPENDED


def test_a_guest_with_much_memory_is_given_the_time_to_save_it():
    given = []

    class Libvirt:
        def call(self, _lane, _work, timeout_s):
            given.append(timeout_s)

    for act in (Domains(Libvirt(), "ours").save, Domains(Libvirt(), "ours").start_saved):
        act(a_guest(memory_mb=512 * 1024))
    assert given == [600 + 512 * 1024 / 50] * 2


def test_a_guest_with_nothing_to_read_has_no_config_drive_where_they_are_not_forced(world):
    world.driver._platform = dataclasses.replace(world.driver._platform, force_config_drive=False)
    spec = world.make_guest(metadata={"a": "b"})
    world.driver.spawn(spec)
    assert drive(world, spec).exists()
    world.driver.reboot(dataclasses.replace(spec, metadata={}))
    assert not drive(world, spec).exists()


def test_malformed_user_data_is_named_and_nothing_is_left(world):
    spec = world.make_guest(user_data="?")
    with pytest.raises(DiskError, match="user data is not base64"):
        world.driver.spawn(spec)
    assert world.leftovers(spec) == []


def test_new_network_facts_of_a_guest_that_is_off_are_on_its_next_drive(world):
    spec = world.make_guest()
    world.driver.spawn(spec)
    world.driver.power_off(spec)
    moved = dataclasses.replace(spec, vifs=(a_vif(),))
    world.driver.inject_network_info(moved)
    assert drive(world, spec).read_bytes() == configdrive.image(moved)


@pytest.mark.parametrize("verb", ["set_admin_password", "inject_file", "reset_network"])
def test_no_agent_is_asked_in_a_guest_that_does_not_run(world, verb):
    spec = world.make_guest()
    world.driver.spawn(spec)
    world.driver.pause(spec)
    arguments = {"set_admin_password": ["x"], "inject_file": ["/x", b"x"], "reset_network": []}[verb]
    with pytest.raises(GuestStateError, match="is PAUSED, so no agent answers in it"):
        getattr(world.driver, verb)(spec, *arguments)


def test_a_config_drive_is_not_counted_among_the_disks(world):
    spec = world.make_guest()
    world.driver.spawn(spec)
    assert world.driver.list_disks(spec.name) == ["vda"]


def test_what_a_file_system_keeps_for_itself_is_nobodys_file(world):
    for name in ("lost+found", ".snapshot"):
        (world.instances / name).mkdir()
    assert world.driver.stray_files([]) == []
