"""What a daemon does until it is ready, in a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.functional.harness import ROOT, Daemon

ONLY_OTHERS_NEED = {"kombu", "amqp", "oslo_utils.strutils", "alembic", "eventlet", "lxml", "libvirt"}
READY = """
import gc, json, sys
before = gc.get_threshold()
from compute import service

def told(daemon):
    loaded = [name for name, module in sys.modules.items() if module]
    print(json.dumps({"loaded": loaded, "garbage": [before, gc.get_threshold()], "kept": gc.get_freeze_count()}))

service.Service.wait = told
service.main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory, template: Path) -> dict[str, Any]:
    """What a daemon on the embedded default says of itself when it is ready."""
    directory = tmp_path_factory.mktemp("start")
    (directory / "fake").mkdir()
    shutil.copy(template, directory / "nova.sqlite")
    config = Daemon(directory, "h1").write_config()
    command = [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{READY}"]
    done = subprocess.run([*command, "--config-file", config], capture_output=True, text=True, timeout=60, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_a_start_on_the_embedded_default_loads_nothing_that_only_others_need(ready: dict[str, Any]) -> None:
    assert set(ready["loaded"]) & ONLY_OTHERS_NEED == set()


def test_a_daemon_that_is_ready_looks_for_garbage_as_it_is_usual(ready: dict[str, Any]) -> None:
    before, after = ready["garbage"]
    assert after == before


def test_what_a_start_made_is_not_looked_through_again(ready: dict[str, Any]) -> None:
    assert ready["kept"] > 50_000
