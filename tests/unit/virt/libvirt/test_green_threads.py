"""In a process of green threads, a libvirt call that hangs holds up nobody: the seam that the service fills."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import warnings; warnings.simplefilter("ignore")
import eventlet; eventlet.monkey_patch()
import os, time
from eventlet.patcher import original
from virt.errors import DriverTimeoutError
from virt.libvirt.calls import Calls
from virt.libvirt.host import Host
native, native_time = original("threading"), original("time")

class Wake:
    def __init__(self):
        self._read, self._write = os.pipe()
    def set(self):
        os.write(self._write, b"x")
    def wait(self, timeout=None):
        try:
            eventlet.hubs.trampoline(self._read, read=True, timeout=timeout, timeout_exc=TimeoutError)
        except TimeoutError:
            return False
        return True

class NativeThreads:
    def start(self, work, name):
        native.Thread(target=work, name=name, daemon=True).start()
    def event(self):
        return Wake()

ticks = []
def tick():
    while True:
        ticks.append(time.monotonic()); time.sleep(0.01)
eventlet.spawn(tick)
calls = Calls(threads=NativeThreads())
try:
    calls.run("hung", lambda: native_time.sleep(60), 0.5)
except DriverTimeoutError:
    print("timeout", max(b - a for a, b in zip(ticks, ticks[1:])) < 0.2, len(ticks) > 20)
host = Host("test:///default", calls=calls)
print(host.call("test", lambda connection: connection.lookupByName("test").info()[0]))
"""


def test_the_hub_runs_on_while_a_call_hangs_in_a_native_thread():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["timeout True True", "1"]
