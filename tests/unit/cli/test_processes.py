import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.databases import an_instance

REPOSITORY = Path(__file__).parents[3]
READS = [["vm", "list"], ["vm", "show", "server-1"], ["service", "list"], ["host", "list"], ["image", "list"]]
HEAVY = ("oslo_messaging", "kombu", "libvirt", "eventlet", "alembic", "rich", "lxml", "argcomplete", "cryptography")


@pytest.fixture
def nova_manage(db, config):
    """Run nova-manage as a process of its own."""
    an_instance(db)

    def run(*argv, prefix=("-m", "compute.cli"), **kwargs):
        command = [sys.executable, "-P", *prefix, "--config-file", str(config), *argv]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **kwargs.pop("env", {})}
        return subprocess.run(command, capture_output=True, check=False, env=environment, timeout=60, **kwargs)

    return run


LOADED = """
import sys
from compute.cli.main import main
code = main(sys.argv[1:])
sys.stderr.write(" ".join(sys.modules))
sys.exit(code)
"""


@pytest.mark.parametrize("argv", READS, ids=" ".join)
def test_a_read_imports_nothing_that_only_orders_need(nova_manage, argv):
    done = nova_manage(*argv, prefix=("-c", LOADED))
    assert done.returncode == 0, done.stderr
    assert not set(HEAVY) & set(done.stderr.decode().split())


def test_json_is_the_only_thing_on_standard_output(nova_manage):
    done = nova_manage("vm", "list", "--json")
    assert json.loads(done.stdout)[0]["display_name"] == "server-1"
    assert done.stderr == b""


def test_an_argument_of_stray_bytes_exits_2(nova_manage):
    done = nova_manage("vm", "show", b"\xff\xfe")
    assert done.returncode == 2
    assert b"is not UTF-8" in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error_to_report(nova_manage, db, config):
    for _ in range(300):
        an_instance(db)
    line = f'"{sys.executable}" -m compute.cli --config-file "{config}" vm list --json | head -n 1'
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=False, cwd=REPOSITORY)
    assert done.stdout == b"[\n"
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr


def test_the_shell_completes_nouns_verbs_and_names(nova_manage, config, tmp_path):
    def completed(line):
        answer = tmp_path / "answer"
        environment = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))}
        nova_manage(env={**environment, "_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "_ARGCOMPLETE_IFS": "\n"})
        return answer.read_text().split("\n")

    assert [word.strip() for word in completed("nova-manage serv")] == ["service", "servergroup"]
    assert "pause " in completed("nova-manage vm p")
    assert completed(f"nova-manage --config-file {config} vm show ser") == ["server-1 "]
