"""nova-manage servergroup: instances kept together, or apart."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from compute import server_groups
from compute.cli.command import Noun, Verb, arg
from compute.cli.session import Session
from compute.cli.views import Record, Table, Text, View
from db.server_groups import ServerGroup

COLUMNS = ("id", "name", "policy", "project_id", "members")


def create(session: Session, args: argparse.Namespace) -> View:
    """Add a group."""
    made = server_groups.create(session.db, session.context, name=args.name, policy=args.policy)
    return Record(facts=_row(session, made))


def list_groups(session: Session, _args: argparse.Namespace) -> View:
    """Groups with the ids of their instances."""
    found = server_groups.get_all(session.db, session.context)
    return Table(rows=[_row(session, one) for one in found], columns=COLUMNS)


def delete(session: Session, args: argparse.Namespace) -> View:
    """Withdraw an empty group."""
    server_groups.delete(session.db, session.context, args.group)
    return Text(lines=[f"server group {args.group} is deleted"], document={"group": args.group})


def _row(session: Session, group: ServerGroup) -> dict[str, Any]:
    return {**asdict(group), "members": sorted(server_groups.members(session.db, group))}


NOUN = Noun(
    name="servergroup",
    verbs=(
        Verb(
            name="create",
            run=create,
            help="add a group: affinity keeps its instances on one host, anti-affinity on different ones",
            example="nova-manage servergroup create web anti-affinity",
            arguments=(arg("name", metavar="NAME"), arg("policy", metavar="POLICY", help="affinity or anti-affinity")),
        ),
        Verb(name="list", run=list_groups, help="list server groups", example="nova-manage servergroup list"),
        Verb(
            name="delete",
            run=delete,
            help="withdraw a group without instances",
            example="nova-manage servergroup delete web",
            arguments=(arg("group", metavar="GROUP", help="name or id"),),
        ),
    ),
)
