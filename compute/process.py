"""What the main of every daemon does: configuration, executor, log, signals; then serve until told to stop."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from compute.errors import ComputeError
from db.errors import DatabaseError
from virt.errors import VirtError

if TYPE_CHECKING:
    from oslo_config.cfg import ConfigOpts

LOG = logging.getLogger("compute.service")
SELDOM = 100_000  # objects more than there were; by default 700


class Daemon(Protocol):
    """What `run` runs; its str() is what the log says of it when it is ready."""

    def start(self) -> None:
        """Begin to serve, or raise why not with nothing left behind."""

    def shut_down(self) -> None:
        """Have `wait` return; from any thread or signal handler."""

    def wait(self) -> None:
        """Block until `shut_down`."""

    def stop(self) -> None:
        """End in good order."""

    @property
    def exit_status(self) -> int:
        """0 when the end was asked for, something else when it was an emergency."""


def run(prog: str, argv: Sequence[str] | None, make: Callable[[ConfigOpts], Daemon]) -> int:
    """Run a daemon until SIGTERM or SIGINT; 1 and one line on standard error when it cannot start."""
    begun = time.monotonic()
    try:
        with _little_garbage():
            daemon = make(_set_up(prog, argv))
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: daemon.shut_down())
            daemon.start()
    except (ComputeError, DatabaseError, VirtError) as exc:
        sys.stderr.write(f"{prog}: cannot start: {exc}\n")
        return 1
    LOG.info("%s ready %s in %.0f ms", prog, daemon, (time.monotonic() - begun) * 1000)
    daemon.wait()
    LOG.info("%s stops", prog)
    daemon.stop()
    logging.shutdown()
    os._exit(daemon.exit_status)  # a thread that hangs in a hypervisor call must not keep the process


@contextmanager
def _little_garbage() -> Iterator[None]:
    """Seldom look for garbage in what a start makes, and never again in what it has made."""
    usual = gc.get_threshold()
    gc.set_threshold(SELDOM)
    try:
        yield
        gc.freeze()
    finally:
        gc.set_threshold(*usual)


def _set_up(prog: str, argv: Sequence[str] | None) -> ConfigOpts:
    from compute import concurrency, logs
    from compute import conf as conf_module

    conf = conf_module.load(args=list(sys.argv[1:] if argv is None else argv), prog=prog)
    concurrency.choose(conf.executor)
    logs.set_up(conf)
    for name in conf_module.unknown_options(conf):
        LOG.warning("configuration: there is no option %s; ignored", name)
    return conf
