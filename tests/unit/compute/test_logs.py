"""The log: where it goes, how loud it is, and that no password is in it."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from compute import conf, logs


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """The root logger is pytest's again afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def a_log(tmp_path: Path, **flags: object) -> Path:
    """Set the log up into a file."""
    file = tmp_path / "nova.log"
    (tmp_path / "empty.conf").touch()
    logs.set_up(conf.load([str(tmp_path / "empty.conf")], {"logfile": str(file), **flags}))
    return file


def test_an_event_is_one_line_with_time_level_and_logger(tmp_path: Path) -> None:
    file = a_log(tmp_path)
    logging.getLogger("compute.task").info("instance %d: %s started", 7, "pausing")
    line = r"\d{4}-\d\d-\d\d [\d:]{8}\.\d{3} \d+ INFO compute\.task instance 7: pausing started\n"
    assert re.fullmatch(line, file.read_text())


@pytest.mark.parametrize(
    "words",
    ["{'admin_pass': 'hush'}", '{"adminPass": "hush"}', "password = hush", "new_pass=hush", "auth_password='hush'"],
)
def test_a_password_is_not_in_the_log(tmp_path: Path, words: str) -> None:
    file = a_log(tmp_path)
    logging.getLogger("compute").error("refused: %s", words)
    assert "refused" in file.read_text()
    assert "hush" not in file.read_text()


def test_a_password_is_not_in_a_traceback_either(tmp_path: Path) -> None:
    file = a_log(tmp_path)
    error = ValueError("cannot log in with password='hush'")
    logging.getLogger("compute").error("accident", exc_info=error)
    assert "ValueError: cannot log in" in file.read_text()
    assert "hush" not in file.read_text()


@pytest.mark.parametrize(("verbose", "told"), [(False, False), (True, True)])
def test_verbose_tells_debug_lines(tmp_path: Path, verbose: bool, told: bool) -> None:
    file = a_log(tmp_path, verbose=verbose)
    logging.getLogger("compute").debug("a doorbell rang twice")
    assert ("rang twice" in file.read_text()) == told


def test_a_library_is_as_loud_as_its_level(tmp_path: Path) -> None:
    file = a_log(tmp_path, default_log_levels=["noisy=ERROR"])
    logging.getLogger("noisy").warning("chatter")
    logging.getLogger("noisy").error("news")
    logging.getLogger("noisy").setLevel(logging.NOTSET)
    assert [line.split()[-1] for line in file.read_text().splitlines()] == ["news"]


def test_syslog_hears_the_same_masked_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(tmp_path / "log"))
        daemon.settimeout(10)
        monkeypatch.setattr(logs, "SYSLOG", str(tmp_path / "log"))
        a_log(tmp_path, use_syslog=True)
        logging.getLogger("compute").error("password = hush")
        heard = daemon.recv(4096).decode()
    assert "ERROR compute password = ***" in heard
