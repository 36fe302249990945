"""The one seam between native threads (the default) and eventlet.

`choose` runs before anything that imports threading-dependent libraries does real work: it monkey-patches under
eventlet, and tells oslo.service, which oslo.messaging imports, which of its back ends to load.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from oslo_config.cfg import ConfigOpts

from compute.errors import ConfigError

THREADING, EVENTLET = "threading", "eventlet"
_chosen: list[str] = []


def choose(executor: str) -> None:
    """Settle how this process runs things at a time; only the first call counts."""
    if _chosen:
        return
    _chosen.append(executor)
    if executor == EVENTLET:
        import eventlet

        eventlet.monkey_patch()
    else:
        # Libraries import eventlet wherever it is installed; with threads it only costs memory and start-up time.
        sys.modules.setdefault("eventlet", None)  # type: ignore[arg-type]
    from oslo_service import backend

    backend.init_backend(backend.BackendType(executor))


def check(conf: ConfigOpts) -> None:
    """Refuse what eventlet cannot do: SQLite deadlocks with itself, and libpq in C stops every green thread."""
    if conf.executor != EVENTLET:
        return
    import os

    for option in ("sql_connection", "transport_url"):
        if getattr(conf, option).startswith("sqlite"):
            raise ConfigError(f"executor = eventlet: {option} must not be SQLite, which deadlocks under it")
    if conf.sql_connection.startswith("postgresql") and os.environ.get("PSYCOPG_IMPL") != "python":
        raise ConfigError("executor = eventlet: psycopg's C code blocks it; set PSYCOPG_IMPL=python in the environment")


def native(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a blocking C call so that it blocks nobody else: as it is with threads, in a native thread under eventlet."""
    if _chosen != [EVENTLET]:
        return call(*args, **kwargs)
    from eventlet import tpool

    return tpool.execute(call, *args, **kwargs)
