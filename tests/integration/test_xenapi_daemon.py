"""nova-compute with compute_driver=xenapi over RabbitMQ, on a simulated pool of two hosts."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from compute.api import Accepted
from compute.errors import ComputeError
from compute.states import Vm
from db import actions, images, instances
from tests.fakes.xenapi import Pool, violations
from tests.fakes.xenapi.check import PUBLISHED
from tests.functional.harness import ADMIN, eventually
from tests.integration.operators import Operator
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
                 "instances_path": directory / "instances", "images_path": directory / "images"}  # fmt: skip
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


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    with Pool(tmp_path / "pool") as made:
        yield made
        if PUBLISHED.is_dir():
            assert violations(made.calls) == []


@pytest.fixture
def site(pool: Pool, rabbit_url: str, tmp_path: Path) -> Iterator[XenSite]:
    with XenSite(tmp_path, rabbit_url, pool) as made:
        yield made


@pytest.fixture
def host(site: XenSite) -> XenSite:
    site.start("h1")
    return site


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


def test_a_guest_moves_and_grows_by_the_command_line(site: XenSite) -> None:
    site.start("h1", "h2")
    vm = Operator(site.config())
    key = site.boot(image="disk", host="h1")
    vm("vm", "live_migration", str(key), "h2", "--wait")
    assert site.pool.record("VM", site.vm(key))["resident_on"] == site.pool.host("beta").ref
    vm("vm", "resize", str(key), "m1.small", "--wait")
    assert site.pool.record("VM", site.vm(key))["memory_static_max"] == 2048 << 20
    vm("vm", "confirm_resize", str(key), "--wait")
    assert site.labels() == [name_of(key)]
    assert site.pool.vdi_bytes(site.root(key), size=len(DATA)) == DATA
    vm("vm", "delete", str(key), "--wait")
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
    subprocess.run(["qemu-img", "convert", *options, tmp_path / "disk.raw", made], check=True)
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
        (lambda pool: pool.add_network("net1", bridge="br1"), "br1"),
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


def test_a_daemon_killed_in_the_middle_of_boots_ends_them_all(host: XenSite) -> None:
    holds = [host.pool.faults.hold(where) for where in SPAWN]
    host.boots(len(SPAWN) + 1)
    kill_and_restart(host, lambda: all(hold.reached.is_set() for hold in holds))
    rows = host.settled()
    assert {row.vm_state for row in rows} == {Vm.ACTIVE}
    assert host.labels() == sorted(name_of(row.id) for row in rows)
    disks = [vdi["name_label"] for vdi in host.pool.records("VDI").values()]
    assert len(disks) == len(set(disks)) == 2 * len(rows)


def test_a_daemon_killed_in_the_middle_of_deletes_leaves_nothing(host: XenSite) -> None:
    keys = [one.instance_id for one in host.boots(len(DELETE) + 1)]
    host.all_active(len(keys))
    holds = [host.pool.faults.hold(where) for where in DELETE]
    for key in keys:
        host.api.delete(ADMIN, key)
    kill_and_restart(host, lambda: all(hold.reached.is_set() for hold in holds))
    assert host.settled() == []
    assert host.pool.leftovers() == {}


def populate(site: XenSite, first: int, count: int) -> None:
    """So many records like the first, and their VMs in the pool."""
    row = site.instance(first)
    like = {name: getattr(row, name) for name in row.__slots__ if name not in {"id", "uuid", "fault"}}
    stamp = site.pool.record("VM", site.vm(first))["other_config"]
    for number in range(count):
        uuid = f"00000000-0000-4000-8000-{number:012d}"
        key = site.db.run(instances.create, {**like, "uuid": uuid}).id
        own = {stamps.UUID: uuid, stamps.NAME: name_of(key)}
        site.pool.add_vm(name_of(key), other_config=stamp | own, resident_on=site.pool.host("alpha").ref,
                         power_state="Running")  # fmt: skip


def test_the_sync_of_a_thousand_guests_asks_for_none_of_them(host: XenSite) -> None:
    populate(host, host.boot(image="disk", host="h1"), 1000)
    host.daemons["h1"].end()
    host.pool.calls.clear()
    host.daemons["h1"].options["periodic_interval"] = 0.5
    host.daemons["h1"].start()
    stopped = host.pool.find("VM", name_label=name_of(500))[0]
    host.pool.guest(stopped).shut_down()
    eventually(lambda: host.instance(500).vm_state == Vm.STOPPED, 60, "a sync")
    asked = [call.method for call in host.pool.calls if call.method.startswith("VM.")]
    assert 0 < len(asked) < 20
    assert len(host.settled()) == 1001


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"xenapi_connection_password": "wrong"}, "wrong name or password"),
        ({"xenapi_ca_file": ""}, "certificate"),
        ({"xenapi_host": "gamma"}, "gamma"),
        ({"xenapi_sr": "twin"}, "twin"),
        ({"xenapi_template": "nothing"}, "nothing"),
        ({"firewall_driver": "iptables"}, "firewall_driver"),
    ],
    ids=["password", "certificate", "host", "two storages", "template", "filters"],
)
def test_a_daemon_that_cannot_serve_says_why(site: XenSite, flags: dict[str, str], words: str) -> None:
    for _ in range(2):
        site.pool.add_sr("twin")
    daemon = site.daemon("h3", **({"xenapi_host": "alpha"} | flags))
    with pytest.raises(AssertionError, match=words):
        daemon.start(20)
