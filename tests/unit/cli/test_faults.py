import sqlite3

import pytest

from compute import hosts
from compute.cli import faults
from compute.errors import ComputeError, QuotaError
from db.errors import DatabaseUnreachableError, DuplicateRowError, RowInUseError, RowNotFoundError, SchemaVersionError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ComputeError("x"), 1),
        (QuotaError("x"), 4),
        (RowNotFoundError("image", "tiny"), 3),
        (RowInUseError("image", 1, "image 2"), 4),
        (DuplicateRowError("UNIQUE"), 4),
        (DatabaseUnreachableError("database x: refused"), 5),
        (SchemaVersionError("x"), 1),
        (PermissionError(13, "Permission denied", "/etc/x"), 1),
        (KeyError("x"), 1),
    ],
)
def test_every_error_has_an_exit_code_and_one_line(error, code):
    fault = faults.explain(error)
    assert fault.exit_code == code
    assert "\n" not in fault.message
    assert fault.unexpected == isinstance(error, KeyError)


def test_a_bus_that_does_not_answer_exits_5():
    import oslo_messaging

    assert faults.explain(oslo_messaging.MessagingTimeout("late")).exit_code == 5


def test_an_unexpected_error_is_one_line_and_a_traceback_only_on_request(manage, monkeypatch):
    monkeypatch.setattr(hosts, "get_all", lambda _db: 1 / 0)
    said = manage("host", "list")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("nova-manage: unexpected error, ZeroDivisionError: division by zero")
    assert said.err.count("\n") == 1
    assert "Traceback" in manage("host", "list", "--debug").err


def test_no_database_yet_says_what_to_run(manage, tmp_path):
    (tmp_path / "nova.sqlite").unlink()
    said = manage("host", "list")
    assert said.code == 1
    assert said.err == f"nova-manage: there is no database {tmp_path}/nova.sqlite: run `nova-manage db sync`\n"
    assert not (tmp_path / "nova.sqlite").exists()


def test_a_database_at_another_revision_names_both_and_the_command(manage, tmp_path):
    with sqlite3.connect(tmp_path / "nova.sqlite") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    said = manage("host", "list")
    assert said.code == 1
    assert said.err.count("\n") == 1
    assert all(words in said.err for words in ("9999", "0001", "nova-manage db sync"))


def test_a_missing_configuration_file_is_one_line(manage):
    said = manage("host", "list", "--config-file", "/does/not/exist")
    assert said.code == 1
    assert "/does/not/exist" in said.err


def test_a_database_that_does_not_answer_exits_5(manage, config):
    config.write_text(f"{config.read_text()}\nsql_connection = postgresql+psycopg://u:secret@127.0.0.1:9/x\n"
                      "sql_retry_interval = 0.01\n")  # fmt: skip
    said = manage("host", "list")
    assert said.code == 5
    assert "secret" not in said.err


def test_db_sync_makes_a_database_with_the_five_flavors(manage, tmp_path):
    (tmp_path / "nova.sqlite").unlink()
    assert manage("db", "sync").code == 0
    assert manage("db", "sync", "--json").document == {"database": "0001", "program": "0001"}
    assert [row["name"] for row in manage("flavor", "list", "--json").document][:2] == ["m1.tiny", "m1.small"]


def test_db_version_speaks_even_without_a_database(manage, tmp_path):
    (tmp_path / "nova.sqlite").unlink()
    assert manage("db", "version", "--json").document == {"database": None, "program": "0001"}
    assert "at revision none, " in manage("db", "version").out
