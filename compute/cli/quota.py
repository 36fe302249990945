"""nova-manage quota: how much a project may have, and has."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from compute import quotas
from compute.cli.command import Noun, Verb, arg
from compute.cli.session import Session
from compute.cli.views import Table, View

COLUMNS = ("resource", "limit", "used", "override")


def show(session: Session, args: argparse.Namespace) -> View:
    """A project's limits and usage."""
    project_id = args.project_id or session.context.project_id
    found = quotas.show(session.db, session.context, project_id, quotas.defaults_from(session.conf))
    rows = [{"project_id": project_id, **asdict(limit)} for limit in found]
    shown = [{**row, "limit": "unlimited" if row["limit"] == -1 else row["limit"]} for row in rows]
    return Table(rows=rows, columns=COLUMNS, shown=shown)


def set_limit(session: Session, args: argparse.Namespace) -> View:
    """Change one limit of a project, then show them all."""
    limit = None if args.limit == "default" else -1 if args.limit == "unlimited" else args.limit
    quotas.set_limit(session.db, session.context, args.project_id, args.resource, limit)
    return show(session, args)


NOUN = Noun(
    name="quota",
    verbs=(
        Verb(
            name="show",
            run=show,
            help="show a project's limits and usage",
            example="nova-manage quota show lab",
            arguments=(arg("project_id", metavar="PROJECT", nargs="?", help="default: the caller's"),),
        ),
        Verb(
            name="set",
            run=set_limit,
            help="set a limit of a project",
            example="nova-manage quota set lab cores 64",
            arguments=(
                arg("project_id", metavar="PROJECT"),
                arg("resource", metavar="RESOURCE", help=", ".join(quotas.RESOURCES)),
                arg("limit", metavar="LIMIT", help="a number, `unlimited`, or `default` for the configured one"),
            ),
        ),
    ),
)
