"""executor = eventlet refuses in one line what it cannot do, and its bridges to native threads hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.functional.harness import ROOT

BRIDGE = """
from compute import concurrency
concurrency.choose("eventlet")
import time, threading, signal, os
threads = concurrency.driver_threads()
ticks = []
threading.Thread(target=lambda: [ticks.append(time.sleep(0.01)) for _ in range(20)], daemon=True).start()
event = threads.event()
native = __import__("eventlet").patcher.original("time")
threads.start(lambda: (native.sleep(0.3), event.set()), "blocks")
assert event.wait(5) and len(ticks) >= 10, ticks
assert threads.event().wait(0.1) is False
stop = concurrency.StopSignal()
signal.signal(signal.SIGALRM, lambda *_: stop.set())
signal.setitimer(signal.ITIMER_REAL, 0.2)
stop.wait()
stop.wait()
print("held")
"""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "sql_connection must not be SQLite"),
        ({"sql_connection": "mysql+pymysql://x@127.0.0.1/x"}, "transport_url must not be SQLite"),
        (
            {"sql_connection": "postgresql+psycopg://x@127.0.0.1/x", "transport_url": "rabbit://127.0.0.1/"},
            "set PSYCOPG_IMPL=python",
        ),
    ],
)
@pytest.mark.parametrize("module", ["compute.service", "compute.scheduler_service"])
def test_what_eventlet_cannot_do_is_refused_in_one_line(
    tmp_path: Path, options: dict[str, str], says: str, module: str
) -> None:
    lines = {"state_path": tmp_path, "executor": "eventlet", "compute_driver": "fake", **options}
    config = tmp_path / "e.conf"
    config.write_text("[DEFAULT]\n" + "".join(f"{name} = {value}\n" for name, value in lines.items()))
    command = [sys.executable, "-m", module, "--config-file", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_native_threads_and_signals_wake_what_is_green() -> None:
    command = [sys.executable, "-c", BRIDGE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert (done.stdout, done.returncode) == ("held\n", 0), done.stderr
