import io
import sys
from datetime import datetime

import pytest

from compute.cli import output
from compute.cli.views import Record, Table, Text


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def on_terminal(monkeypatch):
    """What a view looks like on a terminal of 40 columns."""

    def show(view):
        screen = Terminal()
        monkeypatch.setenv("COLUMNS", "40")
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", screen)
            output.show(view, "table")
        return screen.getvalue()

    return show


UUID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"


def test_a_table_on_a_narrow_terminal_never_cuts_an_id(on_terminal):
    rows = [{"id": 1, "uuid": UUID, "host": "a-host-with-a-rather-long-name.example.org", "n": 10**12}]
    shown = on_terminal(Table(rows=rows, columns=("id", "uuid", "host", "n")))
    assert UUID in shown
    assert "…" not in shown


def test_a_name_cannot_speak_to_the_terminal(on_terminal):
    shown = on_terminal(Table(rows=[{"id": 1, "host": "\x1b]0;owned\x07[red]x"}], columns=("id", "host")))
    assert "\x1b]0" not in shown
    assert "[red]x" in shown


def test_a_console_is_stripped_of_controls_on_a_terminal(on_terminal):
    assert on_terminal(Text(lines=["\x1b[2Jok"], raw=True)) == "\ufffd[2Jok\n"


def test_a_table_in_a_pipe_is_plain_and_aligned(capsys):
    rows = [{"a": "x", "b": None}, {"a": "long one", "b": [1, 2]}]
    output.show(Table(rows=rows, columns=("a", "b")), "table")
    assert capsys.readouterr().out == "a         b\nx         -\nlong one  1, 2\n"


def test_json_has_times_in_iso_and_nothing_else(capsys):
    output.show(Record(facts={"at": datetime(2026, 1, 2), "name": "é\x1b"}), "json")  # noqa: DTZ001
    assert capsys.readouterr().out == '{\n  "at": "2026-01-02T00:00:00.000Z",\n  "name": "\\u00e9\\u001b"\n}\n'


def test_a_complaint_is_one_bounded_line(capsys):
    output.complain("a\nb\x1b" + "x" * 10_000)
    err = capsys.readouterr().err
    assert err.startswith("nova-manage: a")
    assert err.count("\n") == 1
    assert len(err) < 2100


def test_a_poor_locale_gets_escapes_instead_of_an_error(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    output.show(Text(lines=["café"]), "table")
    assert stream.buffer.getvalue() == b"caf\\xe9\n"
