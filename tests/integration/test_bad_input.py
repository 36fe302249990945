"""What cannot work, given to a real host by order: each time the record says why, and nothing is left anywhere."""

from __future__ import annotations

import contextlib
import functools
import http.server
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from compute import conf as conf_module
from compute import errors, images, network, verify, volume
from compute.api import API
from compute.service import build_api
from compute.states import Vm
from db import compute_nodes, instance_types, migration, models, volumes
from tests.functional.harness import ADMIN, Daemon, eventually
from tests.integration.conftest import GuestImage
from tests.integration.processes import free_port, require_root
from tests.integration.servers import LibvirtHost, running
from tests.integration.test_first_guest import Operator
from virt.volume_manager import FileVolumes

MIB = 1024**2
IQN = "iqn.2010-10.org.openstack:x"


@dataclass
class Place:
    """A host with a daemon, whose disk has room for little, and who gives it orders."""

    api: API
    folder: Path
    host: LibvirtHost
    guest: GuestImage
    mute: int
    images_url: str
    volumes: list[int] = field(default_factory=list)

    def image(self, name: str, content: Path, disk_format: str = "raw", **more: Any) -> str:
        """Register an image, which is copied and inspected."""
        given = {"name": name, "location": str(content), "disk_format": disk_format, **more}
        images.add(self.api.db, ADMIN, self.folder / "images", **given)
        return name

    def volume(self, location: str) -> int:
        """Register a volume."""
        made = volume.register(self.api.db, ADMIN, volume.Wish(size_gb=1), location=location)
        self.volumes.append(made.id)
        return made.id

    def network(self, label: str, **facts: Any) -> str:
        """Make a network."""
        network.create(self.api.db, ADMIN, label=label, project_id="nobody", **facts)
        return label

    def boot(self, **request: Any) -> int:
        """Order a guest and return its id."""
        accepted = self.api.create(ADMIN, **{"instance_type": "m1.nano", "image": "tiny", **request})[0]
        with contextlib.suppress(errors.ComputeError):
            self.api.wait(ADMIN, accepted, 120)
        return accepted.instance_id

    def shown(self, instance_id: int) -> dict[str, Any]:
        """Its document."""
        return self.api.reads.show(ADMIN, instance_id)

    def audit(self, guests: int = 0) -> None:
        """See that only so many guests are here, and nothing else of any: files, interfaces, claims, reservations."""
        names = self.host.run("virsh", "list", "--all", "--name").split()
        kept = {entry.name for entry in (self.folder / "instances").iterdir()} - {"_base"}
        assert (len(names), kept) == (guests, set(names))
        assert not list((self.folder / "instances/_base").glob("*.part"))
        node = self.api.db.query(compute_nodes.find, "hosta")
        assert node is not None
        assert node.vcpus_used == guests
        assert {self.api.db.query(volumes.get, one).status for one in self.volumes} <= {"available"}
        assert verify.run(self.api.db, service_down_time_s=60) == []


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of 64 MiB."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=755", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def mute_server() -> Iterator[int]:
    """The port of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@contextlib.contextmanager
def image_server(folder: Path) -> Iterator[str]:
    """The URL of a server of a folder's files."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing of it."""

    def log_message(self, *_args: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def place(guest_image: GuestImage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One for all tests here: each leaves it as it found it."""
    require_root()
    folder = tmp_path_factory.mktemp("place")
    (folder / "images").mkdir()
    with contextlib.ExitStack() as stack:
        stack.enter_context(small_disk(folder / "instances"))
        host = stack.enter_context(running(functools.partial(LibvirtHost, name="hosta")))
        daemon = Daemon(
            folder, "hosta", compute_driver="libvirt", libvirt_uri=host.uri, libvirt_type="qemu",
            guest_agent_timeout=2, scheduler_max_attempts=1, ram_allocation_ratio=16,
        )  # fmt: skip
        api = build_api(conf_module.load([str(daemon.write_config())]))
        stack.callback(api.close)
        migration.sync(api.db)
        api.db.run(instance_types.create, name="m1.nano", flavorid="99", memory_mb=96, vcpus=1, local_gb=0)
        stack.enter_context(daemon)
        eventually(lambda: api.db.query(compute_nodes.find, "hosta"), 30, "the host's resources")
        mute, url = stack.enter_context(mute_server()), stack.enter_context(image_server(folder))
        made = Place(api, folder, host, guest_image, mute, url)
        register_guest(made)
        yield made


def register_guest(place: Place) -> None:
    """The little guest from its ramdisk, which has no agent, beside a disk that is empty."""
    place.image("kernel", place.guest.kernel, "aki")
    place.image("ramdisk", place.guest.ramdisk, "ari")
    (place.folder / "empty").write_bytes(bytes(MIB))
    place.image("tiny", place.folder / "empty", kernel="kernel", ramdisk="ramdisk")


# -- what is asked for, and the words that the record must have -------------------------------------------------------


def a_kernel_that_is_gone(place: Place, name: str = "lost") -> dict[str, Any]:
    (place.folder / name).write_bytes(name.encode())  # not another's bytes, which the host may have cached
    place.image(name, place.folder / name, "aki")
    Path(images.get(place.api.db, ADMIN, name).location).unlink()
    return {"kernel": name}


def an_image_that_was_damaged(place: Place) -> dict[str, Any]:
    (place.folder / "fine").write_bytes(b"fine".ljust(MIB, b"\0"))
    place.image("damaged", place.folder / "fine")
    Path(images.get(place.api.db, ADMIN, "damaged").location).write_bytes(b"torn".ljust(MIB, b"\0"))
    return {"image": "damaged"}


def an_image_that_reads_files_of_the_host(place: Place) -> dict[str, Any]:
    hostile = place.folder / "hostile"
    backing = ["-F", "raw", "-b", "/etc/hostname"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, hostile, "8M"], check=True)
    images.add(
        place.api.db, ADMIN, place.folder / "images", name="hostile", location=f"{place.images_url}/hostile",
        disk_format="qcow2",
    )  # fmt: skip
    return {"image": "hostile"}


def a_bomb(place: Place) -> dict[str, Any]:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", place.folder / "bomb", "10T"], check=True)
    return {"image": place.image("bomb", place.folder / "bomb", "qcow2")}


def an_image_that_does_not_fit_the_host(place: Place) -> dict[str, Any]:
    with (place.folder / "large").open("wb") as file:
        file.writelines([b"\1" * MIB] * 80)
    return {"image": place.image("large", place.folder / "large")}


def a_network_without_a_free_address(place: Place) -> dict[str, Any]:
    label = place.network("dry", bridge="brdry", cidr="10.97.0.0/29")
    place.api.db.run(lambda tx: tx.execute(sa.update(models.fixed_ips).values(reserved=True)))
    return {"network": label}


def a_bridge_that_cannot_be_made(place: Place) -> dict[str, Any]:
    return {"network": place.network("loop", bridge="lo", cidr="10.96.0.0/29")}


def a_volume_on(location: Callable[[Place], str]) -> Callable[[Place], dict[str, Any]]:
    def wish(place: Place) -> dict[str, Any]:
        return {"block_device_mapping": [{"device_name": "/dev/vdb", "volume_id": place.volume(location(place))}]}

    return wish


BOOTS = {
    "missing kernel": (a_kernel_that_is_gone, "image lost: .*No such file"),
    "corrupt image": (an_image_that_was_damaged, "image damaged: its sha256 is"),
    "hostile image": (an_image_that_reads_files_of_the_host, "image hostile: .*backing file"),
    "bomb": (a_bomb, "image bomb: its virtual size, 10240 GiB, exceeds max_image_gb=100"),
    "full disk": (an_image_that_does_not_fit_the_host, "image large: .*No space left"),
    "address pool dry": (a_network_without_a_free_address, "network dry has no free address"),
    "bridge that cannot be made": (a_bridge_that_cannot_be_made, "lo .*bridge"),
    "file that is not there": (a_volume_on(lambda _: "file:/nowhere/v"), "volume .*/nowhere/v: No such file"),
    "dead NBD server": (a_volume_on(lambda _: f"nbd://127.0.0.1:{free_port()}/e"), "volume .*refused"),
    "mute NBD server": (a_volume_on(lambda at: f"nbd://127.0.0.1:{at.mute}/e"), "volume .*timed out"),
    "dead iSCSI portal": (a_volume_on(lambda _: f"iscsi://127.0.0.1:{free_port()}/{IQN}/1"), "volume .*refused"),
    "dead rbd monitor": (a_volume_on(lambda _: f"rbd://127.0.0.1:{free_port()}/pool/image"), "volume .*refused"),
}


@pytest.mark.parametrize("case", BOOTS)
def test_a_guest_that_cannot_be_made_says_why_and_leaves_nothing(place: Place, case: str) -> None:
    wish, reason = BOOTS[case]
    request, started = wish(place), time.monotonic()
    instance_id = place.boot(**request)
    assert time.monotonic() - started < 60
    shown = place.shown(instance_id)
    assert (shown["vm_state"], shown["host"], shown["addresses"]) == (Vm.ERROR, None, [])
    assert re.search(reason, shown["fault"]["message"]), shown["fault"]
    place.audit()
    place.api.delete(ADMIN, instance_id)


@pytest.fixture(scope="module")
def guest(place: Place) -> Iterator[int]:
    """A guest without an agent that is up."""
    instance_id = place.boot()
    eventually(lambda: "GUEST-READY" in place.api.get_console_output(ADMIN, instance_id), 150, "the guest's marker")
    yield instance_id
    place.api.wait(ADMIN, place.api.delete(ADMIN, instance_id), 60)
    place.audit()


def attach(location: Callable[[Place], str]) -> Callable[[Place, int], Any]:
    return lambda place, guest: place.api.attach_volume(ADMIN, guest, place.volume(location(place)), "/dev/vdb")


ORDERS = {
    "absent agent": (lambda place, guest: place.api.set_admin_password(ADMIN, guest, "secret-word"), "agent"),
    "dead NBD server": (attach(lambda _: f"nbd://127.0.0.1:{free_port()}/e"), "volume .*refused"),
    "mute iSCSI portal": (attach(lambda at: f"iscsi://127.0.0.1:{at.mute}/{IQN}/1"), "volume .*timed out"),
    "a disk of its own": (
        lambda place, guest: place.api.attach_volume(ADMIN, guest, place.volume("file:/etc/hostname"), "/dev/vda"),
        "volume .*has another disk at /dev/vda",
    ),
}


@pytest.mark.parametrize("case", ORDERS)
def test_an_order_that_a_running_guest_cannot_obey_says_why_and_changes_nothing(
    place: Place, guest: int, case: str
) -> None:
    order, reason = ORDERS[case]
    with pytest.raises(errors.ComputeError, match=reason):
        place.api.wait(ADMIN, order(place, guest), 60)
    shown = place.shown(guest)
    assert (shown["vm_state"], shown["task_state"], shown["volumes"]) == (Vm.ACTIVE, None, [])
    assert re.search(reason, shown["fault"]["message"])
    assert "secret-word" not in str(shown) + (place.folder / "hosta.log").read_text()
    place.audit(guests=1)


def test_a_volume_that_the_disk_has_no_room_for_leaves_neither_file_nor_record(place: Place) -> None:
    folder = place.folder / "instances/volumes"
    maker = volume.Maker(manager=FileVolumes(folder), name_template="volume-%08x", host="hosta")
    with pytest.raises(errors.ComputeError, match=r"GiB are free, a volume of 1 GiB does not fit"):
        volume.create(place.api.db, ADMIN, maker, volume.Wish(size_gb=1))
    folder.rmdir()
    assert {one.id for one in volume.get_all(place.api.db, ADMIN)} == set(place.volumes)


def test_the_command_line_ends_with_1_and_the_reason(place: Place) -> None:
    image, manage = a_kernel_that_is_gone(place, "forgotten")["kernel"], Operator(place.folder / "hosta.conf")
    boot = ("vm", "boot", "--name", "x", "--instance_type", "m1.nano", "--image", "tiny", "--kernel", image, "--wait")
    said = manage.run(*boot)
    assert (said.returncode, "No such file" in said.stderr) == (1, True)
    place.audit(guests=1)


def test_a_volume_that_another_instance_has_is_refused_with_where(place: Place, guest: int) -> None:
    taken = place.volume("file:/etc/hostname")
    held = place.api.db.run(volumes.reserve_attachment, taken, guest, "/dev/vdz")
    reason = f"volume {taken} is in use by instance {guest} at /dev/vdz"
    with pytest.raises(errors.InUseError, match=reason):
        place.boot(block_device_mapping=[{"device_name": "/dev/vdb", "volume_id": taken}])
    with pytest.raises(errors.InUseError, match=reason):
        place.api.attach_volume(ADMIN, guest, taken, "/dev/vdb")
    place.api.db.run(volumes.set_detached, held)
    place.audit(guests=1)
