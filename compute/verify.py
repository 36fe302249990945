"""Audit the records: what can be seen to be wrong from the database, and what hosts' daemons report beside it.

A check is a function from a read connection to findings. Facts of hypervisors, firewalls and disks are seen by each
host's daemon only; its findings have the same form and are handed to `run` as `reports`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from compute.db_errors import translated
from db import audit, cleaning, services
from db.session import Database, Tx


class Severity(StrEnum):
    """error: something is stuck, leaked or wrong; warning: it may mend itself, or somebody should look."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is amiss. subject: what it is about (`instance 7`); message: what is wrong, and what mends it."""

    severity: Severity
    check: str
    subject: str
    message: str
    host: str | None = None


Check = Callable[[Tx], Iterable[Finding]]


def run(db: Database, *, service_down_time_s: float, reports: Iterable[Finding] = ()) -> list[Finding]:
    """Every finding of the checks and of `reports`, errors first."""
    found = list(reports)
    with translated():
        for check in CHECKS:
            found += db.query(lambda tx, check=check: list(check(tx)))
        found += db.query(_silent_services, service_down_time_s)
    return sorted(found, key=lambda finding: (finding.severity is not Severity.ERROR, finding.check))


_ORPHANS = {
    "deleted": (Severity.ERROR, "runs although its instance is deleted"),
    "elsewhere": (Severity.ERROR, "is here although its instance is on another host"),
}

_FILES = {"files": Severity.WARNING, "broken": Severity.ERROR}
_FILTERS = {"filters": Severity.WARNING, "open": Severity.ERROR}


def seen(host: str, guest: Mapping[str, Any]) -> Finding:
    """What a host's daemon found of a guest: name, uuid, kind, and for files and filters words."""
    subject = f"guest {guest['name']}"
    for check, kinds in (("files", _FILES), ("filters", _FILTERS)):
        if guest["kind"] in kinds:
            words = str(guest["words"])
            return Finding(severity=kinds[guest["kind"]], check=check, subject=subject, message=words, host=host)
    severity, message = _ORPHANS.get(str(guest["kind"]), (Severity.WARNING, f"no record explains it ({guest['kind']})"))
    return Finding(severity=severity, check="guests", subject=subject, message=message, host=host)


def not_asked(host: str, reason: object) -> Finding:
    """A host whose daemon could not be asked what it sees."""
    message = f"its daemon could not be asked: {reason}"
    return Finding(severity=Severity.WARNING, check="guests", subject=f"host {host}", message=message, host=host)


def has_errors(findings: Sequence[Finding]) -> bool:
    """True if one of them is an error."""
    return any(finding.severity is Severity.ERROR for finding in findings)


def _overdue_orders(tx: Tx) -> Iterable[Finding]:
    for order in audit.overdue_orders(tx):
        yield Finding(
            severity=Severity.ERROR,
            check="orders",
            subject=f"action {order.id}",
            message=f"{order.action} of instance {order.instance_id} is {order.state} past its deadline; its host's "
            "daemon settles it when it runs",
            host=order.host,
        )


def _lost_tasks(tx: Tx) -> Iterable[Finding]:
    for lost in audit.lost_tasks(tx):
        yield Finding(
            severity=Severity.ERROR,
            check="tasks",
            subject=f"instance {lost.id}",
            message=f"is taken for {lost.task_state} but no order holds it; its host's daemon settles it when it runs",
            host=lost.host,
        )


def _addresses(tx: Tx) -> Iterable[Finding]:
    for held in audit.held_addresses(tx):
        yield Finding(
            severity=Severity.ERROR,
            check="addresses",
            subject=f"address {held.address}",
            message=f"is held by instance {held.instance_id}, which is deleted",
            host=held.host,
        )


def _volumes(tx: Tx) -> Iterable[Finding]:
    for held in audit.held_volumes(tx):
        yield Finding(
            severity=Severity.ERROR,
            check="volumes",
            subject=f"volume {held.volume_id}",
            message=f"is {held.state} on instance {held.instance_id}, and one of the two is deleted",
            host=held.host,
        )
    for odd in audit.odd_volumes(tx):
        yield Finding(
            severity=Severity.ERROR,
            check="volumes",
            subject=f"volume {odd.id}",
            message=f"is {odd.status}, and its attachments or their instances say otherwise",
            host=odd.host,
        )


def _remains(tx: Tx) -> Iterable[Finding]:
    for order in cleaning.owed(tx):
        yield Finding(
            severity=Severity.WARNING,
            check="remains",
            subject=f"instance {order.instance_id}",
            message=f"was deleted without host {order.host}, which removes what it has of it when its daemon is back; "
            "addresses and volumes stay held until then",
            host=order.host,
        )


def _claims(tx: Tx) -> Iterable[Finding]:
    for node in audit.claims(tx):
        drift = [
            f"{name} {said}, instances add up to {real}"
            for name, said, real in (
                ("vcpus_used", node.vcpus_used, node.vcpus),
                ("memory_mb_used", node.memory_mb_used, node.memory_mb),
                ("local_gb_used", node.local_gb_used, node.local_gb),
            )
            if said != real
        ]
        if drift:
            yield Finding(
                severity=Severity.WARNING,
                check="claims",
                subject=f"host {node.host}",
                message=f"{'; '.join(drift)}; `service update_resource {node.host}` recounts",
                host=node.host,
            )


def _homeless(tx: Tx) -> Iterable[Finding]:
    for instance in audit.homeless(tx):
        yield Finding(
            severity=Severity.ERROR,
            check="hosts",
            subject=f"instance {instance.id}",
            message=f"is on host {instance.host}, for which no compute daemon is registered",
            host=instance.host,
        )


def _silent_services(tx: Tx, service_down_time_s: float) -> list[Finding]:
    return [
        Finding(
            severity=Severity.WARNING,
            check="services",
            subject=f"{one.service.binary} on {one.service.host}",
            message="never reported, or stopped" if one.age_s is None else f"is silent for {one.age_s:.0f} s",
            host=one.service.host,
        )
        for one in services.list_all(tx)
        if one.age_s is None or one.age_s >= service_down_time_s
    ]


CHECKS: tuple[Check, ...] = (_overdue_orders, _lost_tasks, _addresses, _volumes, _remains, _claims, _homeless)
