"""etc/micronova.conf.sample is what the generator makes of the options, on whatever machine it runs."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

from compute import conf

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLE = REPOSITORY / "etc/micronova.conf.sample"
RENEW = "run `.venv/bin/python -m tests.unit.doc_tables`"
COMMAND = "oslo-config-generator --namespace micronova --wrap-width 100 --output-file etc/micronova.conf.sample"


def test_the_sample_is_current(tmp_path: Path) -> None:
    program, *arguments = COMMAND.replace("etc/micronova.conf.sample", str(tmp_path / "sample")).split()
    subprocess.run([Path(sys.executable).with_name(program), *arguments], check=True, capture_output=True, cwd=tmp_path)
    assert SAMPLE.read_text() == (tmp_path / "sample").read_text(), RENEW


def test_the_page_on_configuration_has_the_command() -> None:
    assert f".venv/bin/{COMMAND}\n" in (REPOSITORY / "docs/configuration.md").read_text()


def test_the_sample_names_every_option() -> None:
    named = set(re.findall(r"^#(\w+) =", SAMPLE.read_text(), re.MULTILINE))
    assert named == {option.dest for option in conf.OPTS}


def test_the_sample_knows_nothing_of_the_machine_that_made_it() -> None:
    text = SAMPLE.read_text()
    assert "#state_path = /var/lib/micronova\n" in text
    assert "#host = <hostname>\n" in text
    assert not re.search(rf"= .*\b{re.escape(socket.gethostname())}\b", text)


def test_an_option_has_help_and_one_owner() -> None:
    assert all(option.help for option in conf.OPTS)
    assert len({option.dest for option in conf.OPTS}) == len(conf.OPTS)


def test_the_sample_as_it_is_changes_nothing() -> None:
    plain, sampled = conf.load([str(Path("/dev/null"))]), conf.load([str(SAMPLE)])
    assert [getattr(sampled, option.dest) for option in conf.OPTS] == [
        getattr(plain, option.dest) for option in conf.OPTS
    ]
