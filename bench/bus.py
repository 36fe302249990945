"""Speed of the embedded bus, through plain oslo.messaging, with the server in a process of its own.

python -m bench.bus
"""

import contextlib
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")

import oslo_messaging  # noqa: E402 - after the filter
from oslo_config import cfg  # noqa: E402

TARGET = {"topic": "bench", "server": "here"}


class Counter:
    """The served endpoint."""

    def __init__(self) -> None:
        self.marks = 0

    def echo(self, _ctxt: dict[str, Any], value: Any) -> Any:
        """Return the argument."""
        return value

    def mark(self, _ctxt: dict[str, Any], weight: int) -> None:
        """Count casts."""
        self.marks += weight

    def count(self, _ctxt: dict[str, Any]) -> int:
        """Return how many casts have run."""
        return self.marks


def measure(
    url: str | None = None, serial_calls: int = 2000, casts: int = 5000, concurrent_calls: int = 4000, threads: int = 16
) -> dict[str, float]:
    """Measure one client process against one server process and return rates per second.

    Without `url`, on a new bus in a temporary directory. `casts_sent` is the sender's rate; `casts_done` runs until the
    server has handled the last one.
    """
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        url = url or f"sqlite://{Path(directory, 'bus.sqlite')}"
        client = stack.enter_context(_client(url))
        stack.enter_context(_server(url))
        _rate(200, lambda: client.call({}, "echo", value=0))
        rates = {"serial_calls": _rate(serial_calls, lambda: client.call({}, "echo", value=1))}
        rates.update(_cast_rates(client, casts))
        with ThreadPoolExecutor(threads) as pool:
            started = time.perf_counter()
            list(pool.map(lambda value: client.call({}, "echo", value=value), range(concurrent_calls)))
            rates[f"calls_from_{threads}_threads"] = concurrent_calls / (time.perf_counter() - started)
    return rates


def _cast_rates(client: Any, casts: int) -> dict[str, float]:
    started = time.perf_counter()
    sent = _rate(casts, lambda: client.cast({}, "mark", weight=1))
    while client.call({}, "count") < casts:
        time.sleep(0.005)
    return {"casts_sent": sent, "casts_done": casts / (time.perf_counter() - started)}


def _rate(times: int, act: Callable[[], Any]) -> float:
    started = time.perf_counter()
    for _ in range(times):
        act()
    return times / (time.perf_counter() - started)


@contextlib.contextmanager
def _client(url: str) -> Iterator[Any]:
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url=url)
    try:
        yield oslo_messaging.get_rpc_client(transport, oslo_messaging.Target(**TARGET), timeout=30)
    finally:
        transport.cleanup()


@contextlib.contextmanager
def _server(url: str) -> Iterator[None]:
    command = [sys.executable, "-m", "bench.bus", url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield
        finally:
            process.stdin.close()
            process.wait(10)


def _serve(url: str) -> None:
    """Serve until standard input ends."""
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url=url)
    server = oslo_messaging.get_rpc_server(transport, oslo_messaging.Target(**TARGET), [Counter()])
    server.start()
    print("ready", flush=True)
    sys.stdin.read()
    server.stop()
    server.wait()
    transport.cleanup()


def main() -> None:
    """Print the table, or with a URL serve the other end."""
    if len(sys.argv) > 1:
        _serve(sys.argv[1])
        return
    for what, per_second in measure().items():
        print(f"{what:>24} {per_second:8.0f} /s")


if __name__ == "__main__":
    main()
