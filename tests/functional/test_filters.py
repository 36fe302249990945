"""Packet filters follow the records, on every host that a change concerns."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from compute import security_groups
from compute.refreshing import Refreshing
from db import instances, provider_fw_rules
from db import security_groups as group_rows
from tests.functional.harness import ADMIN, Deployment, eventually
from virt.fake import filters


@pytest.fixture
def deployment(tmp_path: Path, template: Path) -> Iterator[Deployment]:
    """Two hosts that filter."""
    with Deployment(tmp_path, template, firewall_driver="iptables", filter_audit_interval=0) as made:
        yield made.start("alpha", "beta")


@pytest.fixture
def refresh(deployment: Deployment) -> Refreshing:
    """What tells hosts of changes."""
    return Refreshing(deployment.db, deployment.api.rpc)


def group(deployment: Deployment, name: str) -> int:
    return security_groups.create(deployment.db, ADMIN, name=name).id


def boot(deployment: Deployment, host: str, *groups: str) -> int:
    return deployment.boot(host=host, security_groups=list(groups))


def admits(deployment: Deployment, instance_id: int, source: str, port: int = 22) -> bool:
    host = str(deployment.db.query(instances.get, instance_id).host)
    return filters.admits(deployment.drivers[host].hypervisor, f"instance-{instance_id:08x}", "tcp", port, source)


def address(deployment: Deployment, instance_id: int) -> str:
    return deployment.api.reads.show(ADMIN, instance_id)["addresses"][0]["address"]


def let_in(deployment: Deployment, refresh: Refreshing, name: str, **source: str) -> int:
    new = security_groups.rule("tcp", 22, **source)
    return security_groups.add_rule(deployment.db, ADMIN, refresh, name, new).id


def test_a_rule_opens_every_guest_of_its_group_and_its_removal_shuts_them(deployment, refresh):
    group(deployment, "web")
    guests = [boot(deployment, host, "web") for host in ("alpha", "beta")]
    assert not any(admits(deployment, one, "10.9.9.9") for one in guests)
    rule = let_in(deployment, refresh, "web", cidr="10.9.0.0/16")
    eventually(lambda: all(admits(deployment, one, "10.9.9.9") for one in guests))
    security_groups.delete_rule(deployment.db, ADMIN, refresh, rule)
    eventually(lambda: not any(admits(deployment, one, "10.9.9.9") for one in guests))


def test_a_guest_that_leaves_a_group_loses_its_rules(deployment, refresh):
    group(deployment, "web")
    guest = boot(deployment, "alpha", "web")
    let_in(deployment, refresh, "web", cidr="10.9.0.0/16")
    eventually(lambda: admits(deployment, guest, "10.9.9.9"))
    row = deployment.db.query(instances.get, guest)
    security_groups.remove_instance(deployment.db, ADMIN, refresh, "web", row)
    eventually(lambda: not admits(deployment, guest, "10.9.9.9"))
    security_groups.add_instance(deployment.db, ADMIN, refresh, "web", row)
    eventually(lambda: admits(deployment, guest, "10.9.9.9"))


def test_guests_that_come_and_go_are_members_on_every_host(deployment, refresh):
    group(deployment, "clients")
    group(deployment, "web")
    let_in(deployment, refresh, "web", source="clients")
    server = boot(deployment, "alpha", "web")
    client = boot(deployment, "beta", "clients")
    stranger = boot(deployment, "beta", "web")
    known = address(deployment, client)
    eventually(lambda: admits(deployment, server, known))
    assert not admits(deployment, server, address(deployment, stranger))
    deployment.done(deployment.api.delete(ADMIN, client))
    eventually(lambda: not admits(deployment, server, known))


def test_a_message_that_was_lost_is_made_up_for_by_the_audit(deployment, refresh, caplog):
    group(deployment, "web")
    rule = let_in(deployment, refresh, "web", cidr="10.9.0.0/16")
    guest = boot(deployment, "alpha", "web")
    deployment.db.run(group_rows.delete_rule, rule)
    with caplog.at_level(logging.ERROR):
        deployment.services["alpha"].host.filters.repair()
    assert not admits(deployment, guest, "10.9.9.9")
    assert "is not what the rules say" in caplog.text


class Removals:
    """A kernel's word that filters were removed: any byte."""

    def __init__(self):
        self._ear, self.mouth = socket.socketpair()

    def fileno(self):
        return self._ear.fileno()

    def heard(self):
        return bool(self._ear.recv(100))

    def close(self):
        self._ear.close()
        self.mouth.close()


def test_filters_that_somebody_removes_are_put_right_at_once(tmp_path, template, monkeypatch):
    kernel = Removals()
    monkeypatch.setattr("compute.filter_watch.Removals", lambda: kernel)
    with Deployment(tmp_path, template, firewall_driver="iptables", filter_audit_interval=1000) as made:
        made.start("alpha")
        group(made, "web")
        rule = let_in(made, Refreshing(made.db, made.api.rpc), "web", cidr="10.9.0.0/16")
        guest = boot(made, "alpha", "web")
        made.db.run(group_rows.delete_rule, rule)
        assert admits(made, guest, "10.9.9.9")
        kernel.mouth.send(b"removed")
        eventually(lambda: not admits(made, guest, "10.9.9.9"))


def test_a_daemon_puts_filters_right_before_it_serves(deployment, refresh):
    group(deployment, "web")
    rule = let_in(deployment, refresh, "web", cidr="10.9.0.0/16")
    guest = boot(deployment, "alpha", "web")
    assert admits(deployment, guest, "10.9.9.9")
    deployment.stop("alpha")
    deployment.db.run(group_rows.delete_rule, rule)
    deployment.start("alpha")
    assert not admits(deployment, guest, "10.9.9.9")


def test_the_providers_rules_come_first(deployment, refresh):
    group(deployment, "web")
    let_in(deployment, refresh, "web", cidr="10.9.0.0/16")
    guest = boot(deployment, "alpha", "web")
    deployment.db.run(provider_fw_rules.create, protocol="tcp", cidr="10.9.9.0/24")
    deployment.services["alpha"].manager.refresh_provider_fw_rules(ADMIN)
    assert not admits(deployment, guest, "10.9.9.9")
    assert admits(deployment, guest, "10.9.8.9")


def test_a_burst_of_changes_is_one_refresh(deployment, refresh):
    group(deployment, "web")
    guest = boot(deployment, "alpha", "web")
    calls, verb = deployment.drivers["alpha"].calls, "refresh_security_group_rules"
    before = calls[verb]
    for port in range(1000, 1020):
        security_groups.add_rule(deployment.db, ADMIN, refresh, "web", security_groups.rule("tcp", port))
    eventually(lambda: admits(deployment, guest, "10.9.9.9", 1019))
    assert calls[verb] - before < 10


def test_verify_tells_what_the_filters_are_not(deployment, refresh):
    group(deployment, "web")
    rule = let_in(deployment, refresh, "web", cidr="10.9.0.0/16")
    boot(deployment, "alpha", "web")
    deployment.db.run(group_rows.delete_rule, rule)
    found = deployment.api.audit_host(ADMIN, "alpha")
    assert [(one["kind"], one["words"]) for one in found] == [("open", "filter is not what the rules say")]
    deployment.api.audit_host(ADMIN, "alpha", repair=True)
    assert deployment.api.audit_host(ADMIN, "alpha") == []
