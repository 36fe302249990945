"""A daemon that no longer hears its messages ends with a status that makes a supervisor start it again."""

from __future__ import annotations

import time
from typing import Any

import pytest

from compute.messaging import loopback
from compute.messaging.bus_listener import BusListener
from tests.functional.harness import Deployment, eventually


def hear_nothing(*_args: Any, **_kwargs: Any) -> list[Any]:
    """A listener that has lost its queue and does not know."""
    time.sleep(0.05)
    return []


def test_a_deaf_daemon_ends_with_a_failure(one_host: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loopback, "DEAF_AFTER_S", 1.0)
    service = one_host.services["h1"]
    assert service.exit_status == 0
    monkeypatch.setattr(BusListener, "poll", hear_nothing)
    eventually(lambda: service.exit_status == 1, what="an end for the supervisor to see")
    service.wait()


def test_a_daemon_that_hears_goes_on(one_host: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loopback, "DEAF_AFTER_S", 0.2)
    for _ in range(3):
        one_host.boot()
    assert one_host.services["h1"].exit_status == 0
