"""The embedded bus between real processes. Run as a program, this file is the server."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import oslo_messaging
import pytest
from oslo_config import cfg

from compute.messaging.bus_store import BusStore, QueueFullError

EXMODS = ["compute.messaging.bus_store"]


class Endpoint:
    """What a server process answers; it notes what it hears as lines of a file."""

    def __init__(self, name, notes):
        self._name = name
        self._notes = notes

    def whoami(self, ctxt):
        return self._name

    def double(self, ctxt, value):
        return value * 2

    def note(self, ctxt, text):
        with self._notes.open("a") as notes:
            notes.write(f"{text} {self._name}\n")

    def fail(self, ctxt, kind):
        raise {"full": QueueFullError("no room"), "value": ValueError("bad"), "unknown": cfg.Error("strange")}[kind]

    def kill_caller_and_answer(self, ctxt, pid, size_bytes):
        os.kill(pid, signal.SIGKILL)
        return "x" * size_bytes


def serve(url, name, notes):
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url=url)
    target = oslo_messaging.Target(topic="compute", server=name)
    server = oslo_messaging.get_rpc_server(transport, target, [Endpoint(name, Path(notes))])
    server.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop()
    server.wait()
    transport.cleanup()


class Machine:
    """A bus, server processes on it, and one client."""

    def __init__(self, directory):
        self.path = directory / "bus.sqlite"
        self.url = f"sqlite://{self.path}"
        self.notes = directory / "notes"
        self.notes.touch()
        self.processes = []
        self.transport = oslo_messaging.get_rpc_transport(cfg.CONF, url=self.url, allowed_remote_exmods=EXMODS)
        target = oslo_messaging.Target(topic="compute")
        self.client = oslo_messaging.get_rpc_client(self.transport, target, timeout=20)

    def start_server(self, name):
        server = self.run(Path(__file__), self.url, name, self.notes)
        assert server.stdout.readline() == "ready\n"
        return server

    def run(self, *arguments):
        command = [sys.executable, "-W", "ignore", *map(str, arguments)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process

    def noted(self):
        return [line.split()[0] for line in self.notes.read_text().splitlines()]

    def noters(self):
        return {line.split()[1] for line in self.notes.read_text().splitlines()}

    def left_behind(self):
        store = BusStore(self.path)
        endpoints = store.endpoints()
        store.close()
        return endpoints | {socket.name for socket in Path(f"{self.path}-wake").iterdir()}

    def close(self):
        self.transport.cleanup()
        for process in self.processes:
            with process:
                process.kill()


@pytest.fixture
def machine(tmp_path):
    machine = Machine(tmp_path)
    yield machine
    machine.close()


def eventually(fact, deadline_s=20):
    until = time.monotonic() + deadline_s
    while not (found := fact()) and time.monotonic() < until:
        time.sleep(0.01)
    return found


def kill(process):
    process.kill()
    process.wait()


def test_a_call_reaches_the_server_it_names(machine):
    machine.start_server("one")
    machine.start_server("two")
    for name in ("one", "two", "one"):
        assert machine.client.prepare(server=name).call({}, "whoami") == name


def test_a_cast_reaches_its_server(machine):
    machine.start_server("one")
    machine.client.prepare(server="one").cast({}, "note", text="hello")
    assert eventually(machine.noted) == ["hello"]


def test_a_fanout_reaches_every_server_once(machine):
    machine.start_server("one")
    machine.start_server("two")
    machine.client.prepare(fanout=True).cast({}, "note", text="hello")
    assert eventually(lambda: len(machine.noted()) == 2)
    assert machine.noters() == {"one", "two"}


@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [
        ("full", QueueFullError, "no room"),
        ("value", ValueError, "bad"),
        ("unknown", oslo_messaging.RemoteError, "stra"),
    ],
)
def test_an_error_arrives_by_its_class(machine, kind, error, text):
    machine.start_server("one")
    with pytest.raises(error, match=text):
        machine.client.call({}, "fail", kind=kind)


def test_a_call_that_timed_out_is_not_run_later(machine):
    with pytest.raises(oslo_messaging.MessagingTimeout):
        machine.client.prepare(timeout=0.1).call({}, "note", text="too-late")
    machine.client.cast({}, "note", text="afterwards")
    machine.start_server("one")
    assert eventually(machine.noted) == ["afterwards"]


def test_casts_queued_while_the_server_was_killed_are_delivered_once_to_the_next(machine):
    kill(machine.start_server("one"))
    for number in range(50):
        machine.client.prepare(server="one").cast({}, "note", text=number)
    machine.start_server("one")
    assert eventually(lambda: len(machine.noted()) >= 50)
    assert machine.client.prepare(server="one").call({}, "whoami") == "one"
    assert sorted(map(int, machine.noted())) == list(range(50))


def test_casts_survive_the_death_of_their_sender(machine):
    script = (
        "import sys, os, oslo_messaging as m; from oslo_config import cfg\n"
        "client = m.get_rpc_client(m.get_rpc_transport(cfg.CONF, url=sys.argv[1]), m.Target(topic='compute'))\n"
        "[client.cast({}, 'note', text=n) for n in range(20)]; os.kill(os.getpid(), 9)"
    )
    assert machine.run("-c", script, machine.url).wait() == -signal.SIGKILL
    machine.start_server("one")
    assert eventually(lambda: len(machine.noted()) == 20)


def test_two_servers_of_one_topic_share_its_casts_without_doubles(machine):
    machine.start_server("one")
    machine.start_server("two")
    for number in range(400):
        machine.client.cast({}, "note", text=number)
    assert eventually(lambda: len(machine.noted()) >= 400)
    assert sorted(map(int, machine.noted())) == list(range(400))
    assert machine.noters() == {"one", "two"}


def test_calls_from_16_threads_each_get_their_own_answer(machine):
    machine.start_server("one")
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda value: machine.client.call({}, "double", value=value), range(320)))
    assert answers == [value * 2 for value in range(320)]


@pytest.mark.parametrize("size_bytes", [10, 100_000])
def test_a_caller_killed_in_its_call_leaves_nothing_after_the_next_server_starts(machine, size_bytes):
    machine.start_server("one")
    script = (
        "import sys, os, oslo_messaging as m; from oslo_config import cfg\n"
        "client = m.get_rpc_client(m.get_rpc_transport(cfg.CONF, url=sys.argv[1]), m.Target(topic='compute'))\n"
        "client.call({}, 'kill_caller_and_answer', pid=os.getpid(), size_bytes=int(sys.argv[2]))"
    )
    assert machine.run("-c", script, machine.url, size_bytes).wait() == -signal.SIGKILL
    assert machine.client.call({}, "whoami") == "one"
    machine.start_server("two")
    assert eventually(lambda: len(machine.left_behind()) == 3), "two servers and this client"


def test_a_killed_servers_fanout_queue_goes_with_it(machine):
    kill(machine.start_server("one"))
    assert len(machine.left_behind()) == 1
    machine.client.prepare(fanout=True).cast({}, "note", text="hello")
    assert machine.left_behind() == set()


def test_a_server_that_stops_leaves_nothing_behind(machine):
    server = machine.start_server("one")
    server.stdin.close()
    assert server.wait(20) == 0
    assert machine.left_behind() == set()


def test_an_idle_server_uses_no_cpu(machine):
    def used_s():
        return sum(map(int, stat.read_text().split()[13:15])) / os.sysconf("SC_CLK_TCK")

    server = machine.start_server("one")
    stat = Path(f"/proc/{server.pid}/stat")
    assert machine.client.call({}, "whoami") == "one"
    before_s = used_s()
    time.sleep(2)
    assert used_s() - before_s <= 0.03


def test_a_bus_may_lie_deeper_than_a_socket_address_is_long(tmp_path):
    deep = tmp_path.joinpath(*["d" * 60] * 4)
    deep.mkdir(parents=True)
    with contextlib.closing(Machine(deep)) as machine:
        machine.start_server("one")
        assert machine.client.call({}, "whoami") == "one"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    serve(*sys.argv[1:])
