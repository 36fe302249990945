"""Volumes as their owners know them: made and registered, bounded by quota, ended with or without their bytes."""

from __future__ import annotations

import errno

import pytest

from compute import volume
from compute.context import RequestContext, get_admin_context
from compute.errors import (
    ComputeError,
    ConflictError,
    InUseError,
    InvalidInputError,
    NotAuthorizedError,
    QuotaError,
    VolumeNotFoundError,
)
from compute.sealing import Sealer
from compute.volume import Maker, Wish
from db import volumes
from tests.fakes.databases import a_database, an_instance
from virt.volume_manager import FileVolumes

ADMIN = get_admin_context()
ANNA = RequestContext(user_id="anna", project_id="lab")
BOB = RequestContext(user_id="bob", project_id="other")
GIB = 1024**3
IQN = "iqn.2010-10.org.openstack:x"


@pytest.fixture
def db(tmp_path):
    database = a_database(tmp_path)
    yield database
    database.dispose()


@pytest.fixture
def maker(tmp_path):
    return Maker(manager=FileVolumes(tmp_path / "volumes"), name_template="volume-%08x", host="host1")


def files(tmp_path):
    return sorted(path.name for path in (tmp_path / "volumes").glob("*"))


def make(db, maker, **wish):
    return volume.create(db, ANNA, maker, Wish(**({"size_gb": 1} | wish)))


def register(db, location="file:/srv/v", context=ADMIN, **more):
    return volume.register(db, context, Wish(size_gb=1), location=location, **more)


def test_a_volume_belongs_to_its_project(db, maker):
    made = make(db, maker)
    assert [one.id for one in volume.get_all(db, ANNA)] == [made.id]
    assert volume.get_all(db, BOB) == []
    with pytest.raises(VolumeNotFoundError):
        volume.delete(db, BOB, maker, made.id)


def test_a_volume_is_a_sparse_file_of_its_size_and_its_owners_alone(db, maker, tmp_path):
    made = make(db, maker)
    facts = (tmp_path / "volumes/volume-00000001").stat()
    assert (made.status, made.provider_location) == ("available", f"file:{tmp_path}/volumes/volume-00000001")
    assert (facts.st_size, facts.st_blocks, facts.st_mode & 0o777) == (GIB, 0, 0o600)


def test_a_deleted_volume_is_gone_with_its_file(db, maker, tmp_path):
    made = make(db, maker)
    assert volume.delete(db, ANNA, maker, made.id).managed
    assert (files(tmp_path), volume.get_all(db, ADMIN)) == ([], [])


def test_what_was_registered_stays_when_its_record_goes(db, maker, tmp_path):
    (tmp_path / "mine").write_bytes(b"bytes")
    made = register(db, f"file:{tmp_path}/mine")
    assert not volume.delete(db, ADMIN, maker, made.id).managed
    assert (tmp_path / "mine").read_bytes() == b"bytes"


def test_an_attached_volume_is_not_deleted_and_keeps_its_file(db, maker, tmp_path):
    made = make(db, maker)
    db.run(volumes.reserve_attachment, made.id, an_instance(db), "/dev/vdb")
    with pytest.raises(InUseError, match="volume 1 is in use by instance 1 at /dev/vdb"):
        volume.delete(db, ANNA, maker, made.id)
    assert files(tmp_path) == ["volume-00000001"]


def test_a_delete_that_was_interrupted_is_ended_by_the_next(db, maker, tmp_path, monkeypatch):
    made = make(db, maker)
    with monkeypatch.context() as patched:
        patched.setattr(volumes, "delete", interrupted)
        with pytest.raises(KeyboardInterrupt):
            volume.delete(db, ANNA, maker, made.id)
    assert (files(tmp_path), volume.get(db, ANNA, made.id).status) == ([], "deleting")
    volume.delete(db, ANNA, maker, made.id)
    assert volume.get_all(db, ADMIN) == []


def interrupted(*_args):
    raise KeyboardInterrupt


def test_a_volume_that_does_not_fit_leaves_neither_file_nor_record(db, maker, tmp_path):
    with pytest.raises(ComputeError, match=r"volume of 60000 GiB: .*volumes: .* GiB are free"):
        make(db, maker, size_gb=60000)
    assert (files(tmp_path), volume.get_all(db, ADMIN)) == ([], [])


@pytest.mark.parametrize("step", ["open", "ftruncate", "fsync"])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_making_that_fails_at_any_step_leaves_neither_file_nor_record(
    db, maker, tmp_path, monkeypatch, step, failure
):
    def fail(*_args, **_kwargs):
        raise failure

    with monkeypatch.context() as patched:
        patched.setattr(f"virt.volume_manager.os.{step}", fail)
        with pytest.raises((ComputeError, KeyboardInterrupt)):
            make(db, maker)
    assert (files(tmp_path), volume.get_all(db, ADMIN)) == ([], [])


def test_a_volume_deleted_while_it_was_made_leaves_no_file(db, maker, tmp_path, monkeypatch):
    def made_too_late(self, name, size_gb):
        volume.delete(db, ADMIN, maker, 1)
        real(self, name, size_gb)

    real = FileVolumes.create
    monkeypatch.setattr(FileVolumes, "create", made_too_late)
    with pytest.raises(ConflictError, match="volume 1 was deleted while it was made"):
        make(db, maker)
    assert (files(tmp_path), volume.get_all(db, ADMIN)) == ([], [])


def test_a_file_that_somebody_else_put_there_is_not_touched(db, maker, tmp_path):
    (tmp_path / "volumes").mkdir()
    (tmp_path / "volumes/volume-00000001").write_bytes(b"somebody's")
    with pytest.raises(ComputeError, match="volume-00000001: File exists"):
        make(db, maker)
    assert (tmp_path / "volumes/volume-00000001").read_bytes() == b"somebody's"


def test_a_record_that_was_tampered_with_removes_no_other_file(db, maker, tmp_path):
    (tmp_path / "precious").touch()
    made = make(db, maker)
    db.run(volumes.set_status, made.id, "available", "available", provider_location=f"file:{tmp_path}/precious")
    with pytest.raises(ComputeError, match="precious is not a volume in volumes_path"):
        volume.delete(db, ANNA, maker, made.id)
    assert (tmp_path / "precious").exists()


def test_a_volume_of_another_host_is_neither_made_nor_deleted_here(db, maker):
    with pytest.raises(InvalidInputError, match="a volume of host host2 is made there: this is host1"):
        make(db, maker, host="host2")
    made = make(db, maker, host="host1")
    elsewhere = Maker(manager=maker.manager, name_template=maker.name_template, host="host2")
    with pytest.raises(ConflictError, match="volume 1 is on host host1: delete it there, this is host2"):
        volume.delete(db, ANNA, elsewhere, made.id)


@pytest.mark.parametrize("wish", [{"size_gb": 0}, {"size_gb": "x"}, {"size_gb": 10**6}, {"name": " "}])
def test_a_wish_that_makes_no_sense_is_refused(db, maker, wish):
    with pytest.raises(InvalidInputError):
        make(db, maker, **wish)


@pytest.mark.parametrize("limits", [{"volumes": 0}, {"gigabytes": 4}])
def test_a_volume_beyond_the_quota_is_refused(db, maker, limits):
    with pytest.raises(QuotaError, match="project lab may have"):
        make(db, maker, size_gb=5, limits=limits)


@pytest.mark.parametrize(
    "location",
    ["", "srv/v", "file:srv/v", "file:/srv/../etc/v", "file:/" + "v" * 1100, "nbd://h:port/e", "nbd:///e", "rbd:pool",
     f"iscsi://10.0.0.5/{IQN}", f"iscsi://10.0.0.5/{IQN}/x", "nbd://h/e\0", "sheepdog:x"],
)  # fmt: skip
def test_a_location_that_makes_no_sense_is_refused(db, location):
    with pytest.raises(InvalidInputError):
        register(db, location)
    assert volume.get_all(db, ADMIN) == []


def test_only_an_administrator_registers_what_hosts_can_reach(db):
    with pytest.raises(NotAuthorizedError, match="registering a volume needs an administrator"):
        register(db, "file:/etc/shadow", ANNA)


def test_a_login_is_sealed(db, tmp_path):
    sealer = Sealer(str(tmp_path / "seal.key"))
    made = register(db, f"iscsi://10.0.0.5/{IQN}/1", login=("anna", "hush hush"), sealer=sealer)
    assert "hush" not in repr(made)
    assert sealer.open(made.sealed_auth) == "CHAP anna hush hush"


@pytest.mark.parametrize("location", ["nbd://h/e", "file:/srv/v"])
def test_a_login_for_what_takes_none_is_refused_without_its_secret(db, location):
    with pytest.raises(InvalidInputError, match="takes no login") as caught:
        register(db, location, login=("anna", "hush"))
    assert "hush" not in str(caught.value)


def test_volumes_path_is_made_closed_to_others(db, maker, tmp_path):
    make(db, maker)
    assert (tmp_path / "volumes").stat().st_mode & 0o777 == 0o711
