"""nova-compute with compute_driver=xenapi over RabbitMQ, on a simulated pool of two hosts."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from compute.api import Accepted
from compute.errors import ComputeError
from compute.states import Vm
from db import actions, images, instances, volumes
from tests.fakes.xenapi import Pool, violations
from tests.functional.harness import ADMIN, eventually
from tests.integration.operators import Operator
from tests.integration.servers import RabbitMQ
from tests.integration.sites import Site
from virt.xenapi import stamps

pytestmark = pytest.mark.real
DATA = b"\xeb\x3c\x90" + bytes(range(256)) * 4096
IQN = "iqn.2010-10.org.openstack:disks"
SPAWN = ("VDI.create", "VM.clone", "VM.set_other_config", "VBD.create", "VIF.create", "VM.start_on", "import_raw_vdi")
DELETE = ("VM.hard_shutdown", "VM.destroy", "VDI.destroy")


def name_of(instance_id: int) -> str:
    """A guest's name."""
    return f"instance-{instance_id:08x}"


class XenSite(Site):
    """Hosts h1 and h2, on the pool's alpha and beta, which share a storage."""

    def __init__(self, directory: Path, transport_url: str, pool: Pool, **options: Any) -> None:
        self.pool = pool
        flags = {"compute_driver": "xenapi", "xenapi_connection_url": pool.url, "xenapi_ca_file": pool.ca_file,
                 "xenapi_connection_password": pool.password, "xenapi_task_poll_interval": 0.05,
                 "instances_path": directory / "instances", "images_path": directory}  # fmt: skip
        super().__init__(directory, transport_url, f"sqlite:///{directory}/nova.sqlite", **(flags | options))
        pool.add_network("net1", bridge="br1")
        picture = directory / "disk.raw"
        picture.write_bytes(DATA)
        facts = {"status": "active", "disk_format": "raw", "location": str(picture), "is_public": True}
        self.db.run(images.create, name="disk", properties={}, **facts)
        self.daemon("h1", xenapi_host="alpha")
        self.daemon("h2", xenapi_host="beta")

    def boots(self, count: int, image: str = "disk") -> list[Accepted]:
        """Order so many instances on h1."""
        return list(self.api.create(ADMIN, image=image, instance_type="m1.tiny", min_count=count, host="h1"))

    def settled(self, timeout_s: float = 90.0) -> list[Any]:
        """Wait until no order is open; all instances that are not deleted."""
        eventually(lambda: not self._open(), timeout_s, "no open order")
        return list(self.db.query(instances.list_all))

    def _open(self) -> list[Any]:
        return [one for state in actions.OPEN for one in self.db.query(actions.list_recent, state=state)]

    def labels(self) -> list[str]:
        """What the pool's VMs proper are called."""
        return sorted(vm["name_label"] for vm in self.pool.vms().values())

    def vm(self, instance_id: int) -> str:
        """The VM of an instance."""
        [ref] = self.pool.find("VM", name_label=name_of(instance_id))
        return ref

    def root(self, instance_id: int) -> str:
        """The VDI that an instance boots from."""
        vbds = [self.pool.record("VBD", vbd) for vbd in self.pool.record("VM", self.vm(instance_id))["VBDs"]]
        return str(next(vbd["VDI"] for vbd in vbds if vbd["userdevice"] == "0"))


@contextmanager
def a_site(folder: Path, transport_url: str) -> Iterator[XenSite]:
    """A pool, and nothing started; in the end every call was by the published data model."""
    with Pool(folder / "pool") as pool, XenSite(folder, transport_url, pool) as site:
        yield site
        assert violations(pool.calls) == []


@pytest.fixture
def site(rabbit_url: str, tmp_path: Path) -> Iterator[XenSite]:
    """A pool of one's own, no daemon started."""
    with a_site(tmp_path, rabbit_url) as made:
        yield made


@pytest.fixture(scope="module")
def started(rabbitmq: RabbitMQ, tmp_path_factory: pytest.TempPathFactory) -> Iterator[XenSite]:
    """Both daemons, for all tests that kill none."""
    with a_site(tmp_path_factory.mktemp("site"), rabbitmq.new_vhost()) as made:
        yield made.start("h1", "h2")


@pytest.fixture
def host(started: XenSite) -> Iterator[XenSite]:
    """The daemons, with nothing on them before and after."""
    started.pool.calls.clear()
    yield started
    assert violations(started.pool.calls) == []
    started.pool.faults.clear()
    started.pool.free(started.pool.shared_sr)
    for twin in started.pool.find("network", name_label="twin"):
        started.pool.remove("network", twin)
    for row in started.db.query(instances.list_all):
        started.done(started.api.delete(ADMIN, row.id))
    assert started.pool.leftovers() == {}


def states(site: XenSite, instance_id: int) -> tuple[str, str]:
    """What the records and the pool say."""
    return site.instance(instance_id).vm_state, site.pool.record("VM", site.vm(instance_id))["power_state"]


def test_a_guest_lives_its_life_by_the_command_line(host: XenSite) -> None:
    vm = Operator(host.config())
    vm("vm", "boot", "--name", "one", "--image", "disk", "--instance_type", "m1.tiny", "--host", "h1", "--wait")
    key, seen = vm.ask("vm", "show", "one")["id"], []
    assert host.pool.vdi_bytes(host.root(key), size=len(DATA)) == DATA
    for verb in ("pause", "unpause", "suspend", "resume", "stop", "start", "rescue", "unrescue"):
        vm("vm", verb, "one", "--wait")
        seen.append("/".join(states(host, key)))
    assert seen == ["paused/Paused", "active/Running", "suspended/Suspended", "active/Running", "stopped/Halted",
                    "active/Running", "rescued/Running", "active/Running"]  # fmt: skip
    vm("vm", "snapshot", "one", "copy", "--wait")
    assert vm.ask("image", "show", "copy")["status"] == "active"
    vm("vm", "delete", "one", "--wait")
    assert host.pool.leftovers() == {}


def test_a_guest_moves_and_grows_by_the_command_line(host: XenSite) -> None:
    vm, key = Operator(host.config()), host.boot(image="disk", host="h1")
    vm("vm", "live_migration", str(key), "h2", "--wait")
    assert host.pool.record("VM", host.vm(key))["resident_on"] == host.pool.host("beta").ref
    vm("vm", "resize", str(key), "m1.small", "--wait")
    assert host.pool.record("VM", host.vm(key))["memory_static_max"] == 2048 << 20
    vm("vm", "confirm_resize", str(key), "--wait")
    assert host.labels() == [name_of(key)]
    assert host.pool.vdi_bytes(host.root(key), size=len(DATA)) == DATA
    vm("vm", "delete", str(key), "--wait")
    assert host.pool.leftovers() == {}


def test_a_guest_moves_with_its_disks_between_local_storages(site: XenSite) -> None:
    for name, there in (("h1", "alpha"), ("h2", "beta")):
        site.daemons[name].options["xenapi_sr"] = f"local-{there}"
    site.start("h1", "h2")
    key = site.boot(image="disk", host="h1")
    site.done(site.api.live_migration(ADMIN, key, "h2"))
    assert site.pool.record("VDI", site.root(key))["SR"] == site.pool.local_sr("beta")
    assert site.pool.calls_of("VM.migrate_send")
    site.done(site.api.resize(ADMIN, key, "m1.small"), 60)
    site.done(site.api.revert_resize(ADMIN, key), 60)
    assert site.pool.vdi_bytes(site.root(key), size=len(DATA)) == DATA
    site.done(site.api.delete(ADMIN, key))
    assert site.pool.leftovers() == {}


def test_a_volume_comes_and_goes_by_the_command_line(host: XenSite) -> None:
    host.pool.add_target("192.0.2.1", IQN, {"1": 1 << 30})
    vm, key = Operator(host.config()), host.boot(image="disk", host="h1")
    vm("volume", "create", "1", "--connection", f"iscsi://192.0.2.1:3260/{IQN}/1", "--name", "data")
    vm("volume", "attach", "1", str(key), "/dev/vdb", "--wait")
    [lun] = [ref for ref, vdi in host.pool.records("VDI").items() if "SCSIid" in vdi["sm_config"]]
    [vbd] = host.pool.record("VDI", lun)["VBDs"]
    assert host.pool.record("VBD", vbd)["currently_attached"]
    vm("volume", "detach", "1", "--wait")
    assert "SR" not in host.pool.leftovers()


def test_a_vhd_image_boots(host: XenSite, tmp_path: Path) -> None:
    made = tmp_path / "disk.vhd"
    options = ["-f", "raw", "-O", "vpc", "-o", "force_size=on"]
    subprocess.run(["qemu-img", "convert", *options, host.directory / "disk.raw", made], check=True)
    Operator(host.config())("image", "add", "--name", "vhd", "--location", str(made), "--disk_format", "vhd")
    key = host.boot(image="vhd", host="h1")
    assert host.pool.vdi_bytes(host.root(key), size=len(DATA)) == DATA


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (lambda pool: pool.faults.fail_transfer("import_raw_vdi", "VDI_IO_ERROR", "Device I/O errors"), "VDI_IO_ERROR"),
        (lambda pool: pool.faults.cut_transfer("import_raw_vdi", len(DATA) // 2), "VDI_IO_ERROR"),
        (lambda pool: pool.faults.refuse_transfer("import_raw_vdi", 500), "HTTP 500"),
        (lambda pool: pool.fill(pool.shared_sr), "SR_BACKEND_FAILURE_44"),
        (lambda pool: pool.faults.fail("VM.start_on", "HOST_NOT_ENOUGH_FREE_MEMORY", "1", "0"), "HOST_NOT_ENOUGH"),
        (lambda pool: pool.add_network("twin", bridge="br1"), "2 networks of the pool"),
    ],
    ids=["task fails after 200", "connection drops", "refused", "storage is full", "no memory", "two networks"],
)
def test_a_boot_that_fails_leaves_nothing_and_says_why(
    host: XenSite, spoil: Callable[[Pool], object], cause: str
) -> None:
    spoil(host.pool)
    with pytest.raises(ComputeError, match=cause):
        host.boot(image="disk", host="h1")
    [row] = host.settled()
    assert row.vm_state == Vm.ERROR
    assert host.pool.leftovers() == {}
    assert not host.pool.faults.pending


def test_an_image_goes_to_the_host_that_a_transfer_is_sent_to(host: XenSite) -> None:
    host.pool.faults.redirect("import_raw_vdi")
    key = host.boot(image="disk", host="h1")
    assert host.pool.vdi_bytes(host.root(key), size=len(DATA)) == DATA
    uploads = [call.host for call in host.pool.calls if call.method == "PUT /import_raw_vdi"]
    assert uploads[:2] == ["alpha", "beta"]


def test_a_clone_whose_answer_was_lost_makes_no_second_vm(host: XenSite) -> None:
    host.pool.faults.lose_reply("VM.clone")
    key = host.boot(image="disk", host="h1")
    assert not host.pool.faults.pending
    assert len(host.pool.calls_of("VM.clone")) == 1
    assert host.labels() == [name_of(key)]


def kill_and_restart(site: XenSite, wait_for: Callable[[], bool]) -> None:
    """kill -9 with a call of each held in mid-air, which is then done for nobody; and a new daemon."""
    eventually(wait_for, 60, "all of them in mid-air")
    site.daemons["h1"].kill()
    site.pool.faults.release()
    site.daemons["h1"].start()


def test_a_daemon_killed_in_the_middle_of_boots_ends_them_all(site: XenSite) -> None:
    site.start("h1")
    holds = [site.pool.faults.hold(where) for where in SPAWN]
    site.boots(len(SPAWN) + 1)
    kill_and_restart(site, lambda: all(hold.reached.is_set() for hold in holds))
    rows = site.settled()
    assert {row.vm_state for row in rows} == {Vm.ACTIVE}
    assert site.labels() == sorted(name_of(row.id) for row in rows)
    disks = [vdi["name_label"] for vdi in site.pool.records("VDI").values()]
    assert len(disks) == len(set(disks)) == 2 * len(rows)


def test_a_daemon_killed_in_the_middle_of_deletes_leaves_nothing(site: XenSite) -> None:
    site.start("h1")
    keys = [one.instance_id for one in site.boots(len(DELETE) + 1)]
    site.all_active(len(keys))
    holds = [site.pool.faults.hold(where) for where in DELETE]
    for key in keys:
        site.api.delete(ADMIN, key)
    kill_and_restart(site, lambda: all(hold.reached.is_set() for hold in holds))
    assert site.settled() == []
    assert site.pool.leftovers() == {}


def test_a_daemon_killed_in_the_middle_of_anything_ends_it(site: XenSite) -> None:
    site.start("h1", "h2")
    paused, suspended, moved, plugged, copied = keys = [one.instance_id for one in site.boots(5)]
    site.all_active(5)
    holds = [site.pool.faults.hold(where) for where in ("VBD.plug", "VM.pool_migrate")]
    holds += [site.pool.faults.hold(where, done=True) for where in ("VM.pause", "VM.suspend", "VDI.snapshot")]
    site.api.pause(ADMIN, paused)
    site.api.suspend(ADMIN, suspended)
    site.api.live_migration(ADMIN, moved, "h2")
    site.api.attach_volume(ADMIN, plugged, a_volume(site), "/dev/vdb")
    site.api.snapshot(ADMIN, copied, "copy")
    kill_and_restart(site, lambda: all(hold.reached.is_set() for hold in holds))
    site.settled()
    expected = ["paused/Paused", "suspended/Suspended", *["active/Running"] * 3]
    assert ["/".join(states(site, key)) for key in keys] == expected
    leaves_nothing(site, keys)


def a_volume(site: XenSite) -> int:
    """One on an iSCSI target that the hosts reach."""
    site.pool.add_target("192.0.2.1", IQN, {"1": 1 << 30})
    facts = {"user_id": "admin", "project_id": "admin", "size": 1, "status": "available"}
    return site.db.run(volumes.create, provider_location=f"iscsi:192.0.2.1:3260,1 {IQN} 1", **facts)


def leaves_nothing(site: XenSite, keys: list[int]) -> None:
    """Instances that are deleted are gone with all that was made for them."""
    for key in keys:
        site.done(site.api.delete(ADMIN, key))
    assert site.pool.leftovers() == {}


def populate(site: XenSite, first: int, count: int) -> None:
    """So many records like the first, and their VMs in the pool."""
    row = site.instance(first)
    like = {name: getattr(row, name) for name in row.__slots__ if name not in {"id", "uuid", "fault"}}
    stamp = site.pool.record("VM", site.vm(first))["other_config"]
    uuids = [f"00000000-0000-4000-8000-{number:012d}" for number in range(count)]
    keys = site.db.run(lambda tx: [instances.create(tx, {**like, "uuid": uuid}) for uuid in uuids])
    for key, uuid in zip(keys, uuids, strict=True):
        own = {stamps.UUID: uuid, stamps.NAME: name_of(key), stamps.VM: uuid}
        site.pool.add_vm(name_of(key), uuid=uuid, other_config=stamp | own, power_state="Running",
                         resident_on=site.pool.host("alpha").ref)  # fmt: skip


def test_the_sync_of_a_thousand_guests_asks_for_none_of_them(site: XenSite) -> None:
    site.start("h1")
    populate(site, site.boot(image="disk", host="h1"), 1000)
    site.daemons["h1"].end()
    site.pool.calls.clear()
    site.daemons["h1"].options["periodic_interval"] = 0.5
    site.daemons["h1"].start()
    stopped = site.pool.find("VM", name_label=name_of(500))[0]
    site.pool.guest(stopped).shut_down()
    eventually(lambda: site.instance(500).vm_state == Vm.STOPPED, 120, "a sync")
    asked = [call.method for call in site.pool.calls if call.method.startswith("VM.")]
    assert 0 < len(asked) < 20
    assert Counter(row.vm_state for row in site.settled()) == {Vm.ACTIVE: 1000, Vm.STOPPED: 1}


def test_a_daemon_with_a_wrong_password_says_so(site: XenSite) -> None:
    daemon = site.daemon("h3", xenapi_host="alpha", xenapi_connection_password="wrong")
    with pytest.raises(AssertionError, match="wrong name or password"):
        daemon.start(20)


def test_a_daemon_does_not_believe_an_expired_certificate(site: XenSite) -> None:
    site.pool.expire_certificate()
    with pytest.raises(AssertionError, match="certificate has expired"):
        site.daemon("h1").start(20)


def test_a_daemon_whose_pool_is_away_says_so(site: XenSite) -> None:
    with site.pool.cut_off(), pytest.raises(AssertionError, match=r"127\.0\.0\.1"):
        site.daemon("h1").start(20)
