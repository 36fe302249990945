"""A finished file is at its place completely, or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

import virt.handover
from virt.driver import no_progress
from virt.errors import DiskError, DiskFullError
from virt.handover import hand_over

CONTENT = b"0123456789" * 300_000


@pytest.fixture
def source(tmp_path):
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "from/file").write_bytes(CONTENT)
    return tmp_path / "from/file"


@pytest.fixture
def other_file_system(monkeypatch, source):
    """The source cannot be renamed to where it should go."""
    real = Path.replace

    def replace(path, target):
        if path == source:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "to/file"


def arrives(source, target):
    assert hand_over(source, target, no_progress) == hashlib.sha256(CONTENT).hexdigest()
    assert target.read_bytes() == CONTENT
    assert target.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in target.parent.iterdir()] == ["file"]
    assert not source.exists()


def test_a_file_is_moved(source, target):
    arrives(source, target)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_that_the_hypervisor_made_is_ours_afterwards(source, target):
    os.chown(source, 64055, 64055)
    hand_over(source, target, no_progress)
    assert (target.stat().st_uid, target.stat().st_gid) == (0, 0)


@pytest.mark.usefixtures("other_file_system")
def test_a_file_is_moved_to_another_file_system(source, target):
    target.with_name("file.part").write_bytes(b"of an earlier attempt")
    arrives(source, target)


@pytest.mark.usefixtures("other_file_system")
@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, DiskFullError), (errno.EIO, DiskError)])
def test_a_copy_that_fails_leaves_nothing(source, target, monkeypatch, code, kind):
    def fail(*_args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(virt.handover, "_write", fail)
    with pytest.raises(kind, match=os.strerror(code)):
        hand_over(source, target, no_progress)
    assert list(target.parent.iterdir()) == []
    assert source.read_bytes() == CONTENT


@pytest.mark.usefixtures("other_file_system")
@pytest.mark.parametrize("step", [1, 4])
def test_a_cancelled_move_leaves_nothing(source, target, monkeypatch, step):
    monkeypatch.setattr(virt.handover, "_PROGRESS_S", -1.0)
    steps = iter(range(step))

    def progress(_words):
        if next(steps, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hand_over(source, target, progress)
    assert list(target.parent.iterdir()) == []
    assert source.exists()
