"""Configuration: where it is found, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from compute import conf
from compute.errors import ConfigError
from compute.service import Service
from db import migration, services
from db.errors import DatabaseError
from db.session import Database
from virt.errors import DriverConfigError


def write(path: Path, text: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text("[DEFAULT]\n" + text)
    return str(path)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"/no/such\.conf does not exist"):
        conf.load(["/no/such.conf"])


@pytest.mark.parametrize(
    "line", ["report_interval = soon", "rpc_thread_pool_size = 0", "executor = fibers", "verbose = perhaps"]
)
def test_a_value_of_the_wrong_type_is_named_in_one_line(tmp_path: Path, line: str) -> None:
    name = write(tmp_path / "f.conf", line)
    for files, args in (([name], []), ([], ["--config-file", name])):
        with pytest.raises(ConfigError, match=f"option {line.partition(' = ')[0]} in {name} is not valid: ") as caught:
            conf.load(files, args=args)
        assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "f.conf").write_bytes(b"[DEFAULT]\nhost = \xff\xfe\n")
    with pytest.raises(ConfigError, match=r"f\.conf: not UTF-8 text"):
        conf.load(args=["--config-file", str(tmp_path / "f.conf")])


def test_the_command_line_outranks_a_file_wherever_it_is_named(tmp_path: Path) -> None:
    name = write(tmp_path / "f.conf", "host = here\nreport_interval = 5")
    for file in (["--config-file", name], [f"--config-file={name}"]):
        loaded = conf.load(args=["--host", "there", *file])
        assert (loaded.host, loaded.report_interval) == ("there", 5)


def test_the_file_in_the_state_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / ".state" / "micronova.conf", "host = here")
    monkeypatch.chdir(tmp_path)
    assert conf.load().host == "here"


def test_a_file_that_anyone_may_write_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = write(tmp_path / ".state" / "micronova.conf", "compute_driver = evil.Driver")
    Path(found).chmod(0o666)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="belongs to somebody else"):
        conf.load()


def test_options_that_do_not_exist_are_found(tmp_path: Path) -> None:
    loaded = conf.load([write(tmp_path / "f.conf", "rabbit_host = h\nhost = h\n")])
    assert conf.unknown_options(loaded) == ["rabbit_host"]


@pytest.mark.parametrize(("url", "words"), [
    ("nonsense", "sql_connection: not a database's URL"),
    ("foo://user:hunter2@host/nova", "sql_connection: foo: Can't load plugin"),
    ("mssql+nodriver://user:hunter2@host/nova", "sql_connection: mssql.nodriver: "),
])  # fmt: skip
def test_a_database_that_there_is_no_way_to_keeps_the_daemon_from_starting(
    tmp_path: Path, url: str, words: str
) -> None:
    loaded = conf.load([write(tmp_path / "f.conf", f"sql_connection = {url}\nstate_path = {tmp_path}\n")])
    with pytest.raises(DatabaseError, match=words) as caught:
        Service(loaded).start()
    assert "hunter2" not in str(caught.value)


def test_a_database_file_that_is_another_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "nova.sqlite").write_bytes(b"something else, which is no database at all" * 100)
    with pytest.raises(DatabaseError, match="database: file is not a database"):
        Service(conf.load([write(tmp_path / "f.conf", f"state_path = {tmp_path}\n")])).start()


def test_a_transport_that_there_is_not_keeps_the_daemon_from_starting(tmp_path: Path) -> None:
    migration.sync(Database(f"sqlite:///{tmp_path}/nova.sqlite"))
    loaded = conf.load([write(tmp_path / "f.conf", f"transport_url = foo://host\nstate_path = {tmp_path}\n")])
    with pytest.raises(ConfigError, match="transport_url: there is no foo:// here"):
        Service(loaded).start()


@pytest.mark.parametrize("driver", ["ip-tables", "my.Firewall"])
def test_a_filter_that_is_not_there_keeps_the_daemon_from_starting(tmp_path: Path, driver: str) -> None:
    loaded = conf.load([write(tmp_path / "f.conf", f"firewall_driver = {driver}\nstate_path = {tmp_path}\n")])
    with pytest.raises(DriverConfigError, match=f"firewall_driver = {driver}"):
        Service(loaded).start()
    assert not (tmp_path / "nova.sqlite").exists()


@pytest.mark.parametrize(
    ("driver", "reason"),
    [
        ("nonsense", "neither one of"),
        ("no.such.Driver", "No module named"),
        ("builtins.dict", "not a ComputeDriver"),
        ("os.path", "neither a driver nor a factory"),
    ],
)
def test_a_driver_that_does_not_exist_keeps_the_daemon_from_registering(
    tmp_path: Path, driver: str, reason: str
) -> None:
    database = Database(f"sqlite:///{tmp_path}/nova.sqlite")
    migration.sync(database)
    loaded = conf.load([write(tmp_path / "f.conf", f"compute_driver = {driver}\nstate_path = {tmp_path}\n")])
    with pytest.raises(DriverConfigError, match=f"compute_driver = {driver}: .*{reason}"):
        Service(loaded).start()
    assert database.query(services.list_all) == []
    database.dispose()
