"""nova-manage action: the journal of operations."""

from __future__ import annotations

import argparse

from compute import valid
from compute.cli.command import Noun, Verb, arg, row_id
from compute.cli.session import Session
from compute.cli.views import Record, Table, View

COLUMNS = ("id", "instance_id", "action", "state", "step", "host", "requested_at", "finished_at", "error")
STATES = ("requested", "running", "done", "failed", "aborted")


def list_actions(session: Session, args: argparse.Namespace) -> View:
    """The latest orders, newest first."""
    limit = valid.whole("--limit", args.limit, least=1, most=10000)
    found = session.reads.recent_actions(session.context, state=args.state, host=args.host, limit=limit)
    return Table(rows=found, columns=COLUMNS)


def show(session: Session, args: argparse.Namespace) -> View:
    """One order, with its fault."""
    return Record(facts=session.reads.action(session.context, args.action))


NOUN = Noun(
    name="action",
    verbs=(
        Verb(
            name="list",
            run=list_actions,
            help="list the latest operations, newest first",
            example="nova-manage action list --state failed",
            arguments=(
                arg("--state", choices=STATES, help="in this state only"),
                arg("--host", metavar="H", completes="hosts", help="of this host only"),
                arg("--limit", metavar="N", default=100, help="how many (default 100)"),
            ),
        ),
        Verb(
            name="show",
            run=show,
            help="show one operation",
            example="nova-manage action show 17",
            arguments=(arg("action", metavar="ACTION", type=row_id),),
        ),
    ),
)
