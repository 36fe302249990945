"""Secrets are sealed with one key for a deployment."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from compute.errors import ConfigError
from compute.sealing import Sealer


def test_what_is_sealed_is_unreadable_and_comes_back(tmp_path: Path) -> None:
    sealer = Sealer(str(tmp_path / "key"))
    sealed = sealer.seal({"new_pass": "s3cret"})
    assert "s3cret" not in sealed
    assert Sealer(str(tmp_path / "key")).open(sealed) == {"new_pass": "s3cret"}


def test_the_key_is_for_its_owner_only(tmp_path: Path) -> None:
    Sealer(str(tmp_path / "key")).seal(1)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_another_hosts_key_says_so(tmp_path: Path) -> None:
    sealed = Sealer(str(tmp_path / "one")).seal(1)
    with pytest.raises(ConfigError, match="not the key that sealed this"):
        Sealer(str(tmp_path / "two")).open(sealed)


def test_a_key_that_is_none_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("nonsense")
    with pytest.raises(ConfigError, match="seal_key_file"):
        Sealer(str(tmp_path / "key")).seal(1)


def test_first_users_at_one_moment_agree_on_a_key(tmp_path: Path) -> None:
    sealed: list[str] = []
    threads = [
        threading.Thread(target=lambda: sealed.append(Sealer(str(tmp_path / "key")).seal("x"))) for _ in range(8)
    ]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert {Sealer(str(tmp_path / "key")).open(one) for one in sealed} == {"x"}
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_digest_tells_wishes_apart_and_nothing_of_them(tmp_path: Path) -> None:
    ours, theirs = Sealer(str(tmp_path / "key")), Sealer(str(tmp_path / "other"))
    assert ours.digest({"a": 1, "b": "s3cret"}) == Sealer(str(tmp_path / "key")).digest({"b": "s3cret", "a": 1})
    assert ours.digest("s3cret") != ours.digest("s3cret ")
    assert ours.digest("s3cret") != theirs.digest("s3cret")
