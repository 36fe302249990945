"""nova-manage vm: instances. Their list and facts are here; what is done to them is in the vm_* files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from compute.cli import vm_boot, vm_guest, vm_orders
from compute.cli.action import COLUMNS as ACTION_COLUMNS
from compute.cli.command import INSTANCE, Noun, Verb, arg
from compute.cli.session import Session
from compute.cli.views import Record, Table, View

COLUMNS = (
    *("id", "display_name", "host", "vm_state", "task_state", "power_state"),
    *("instance_type", "addresses", "project_id"),
)
_WHOLE = frozenset({"id", "addresses"})
_DELETED = arg("--deleted", action="store_true", help="deleted ones too")


def list_instances(session: Session, args: argparse.Namespace) -> View:
    """The caller's instances; every project's for an administrator."""
    found = session.reads.get_all(
        session.context,
        project_id=args.project,
        host=args.host,
        reservation_id=args.reservation,
        fixed_ip=args.fixed_ip,
    )
    rows = session.reads.summary(found)
    shown = [{**row, "addresses": _addresses(row)} for row in rows]
    return Table(rows=rows, columns=COLUMNS, shown=shown, whole=_WHOLE)


def _addresses(row: Mapping[str, Any]) -> list[str]:
    return [f"{held['network']}={held['address']}" for held in row["addresses"]]


def show(session: Session, args: argparse.Namespace) -> View:
    """Everything about one instance."""
    return Record(facts=session.reads.show(session.context, args.instance))


def actions(session: Session, args: argparse.Namespace) -> View:
    """What was ever done to one instance, oldest first."""
    return Table(rows=session.reads.actions(session.context, args.instance), columns=ACTION_COLUMNS)


NOUN = Noun(
    name="vm",
    verbs=(
        vm_boot.BOOT,
        Verb(
            name="list",
            run=list_instances,
            help="list instances",
            example="nova-manage vm list host1 --json",
            arguments=(
                arg("host", metavar="HOST", nargs="?", completes="hosts", help="on this host only"),
                arg("--reservation", metavar="R", help="booted by this request only"),
                arg("--fixed_ip", metavar="IP", help="the one that holds this address"),
                _DELETED,
            ),
        ),
        Verb(
            name="show",
            run=show,
            help="show one instance: state, host, addresses, volumes, fault",
            example="nova-manage vm show my-server --json",
            arguments=(INSTANCE, _DELETED),
        ),
        *vm_orders.VERBS,
        *vm_guest.VERBS,
        Verb(
            name="actions",
            run=actions,
            help="list what was done to an instance",
            example="nova-manage vm actions my-server",
            arguments=(INSTANCE,),
        ),
    ),
)
