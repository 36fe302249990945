"""A request id is the idempotency key of plain casts: of a wish that is said twice, not of two wishes."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from compute.errors import ComputeError
from tests.functional.harness import ADMIN, Deployment, eventually

SAME = replace(ADMIN, request_id="req-always-the-same")


def done(cloud: Deployment, action: str) -> int:
    """How many orders of that kind are done."""
    return sum(one.state == "done" for one in cloud.actions(1) if one.action == action)


def test_one_wish_that_is_cast_three_times_counts_once(one_host: Deployment, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    one_host.boot()
    for _ in range(3):
        one_host.ring("h1", "reboot_instance", SAME, instance_id=1, reboot_type="HARD")
    eventually(lambda: caplog.text.count("request req-always-the-same came twice") == 2, what="two dropped")
    eventually(lambda: done(one_host, "rebooting_hard"))
    assert one_host.drivers["h1"].calls["reboot"] == 1


def test_a_call_that_is_repeated_is_told_so(one_host: Deployment) -> None:
    one_host.boot()
    one_host.call("h1", "reset_network", SAME, instance_id=1)
    with pytest.raises(ComputeError, match="req-always-the-same came twice"):
        one_host.call("h1", "reset_network", SAME, instance_id=1)


def test_other_arguments_are_another_wish(one_host: Deployment) -> None:
    one_host.boot()
    for text in ("one", "two"):
        one_host.call("h1", "inject_file", SAME, instance_id=1, path="/etc/motd", file_contents=text)
    with pytest.raises(ComputeError, match="came twice"):
        one_host.call("h1", "inject_file", SAME, instance_id=1, path="/etc/motd", file_contents="one")
    assert (done(one_host, "injecting_file"), one_host.drivers["h1"].calls["inject_file"]) == (2, 2)
