"""nova-manage secgroup: security groups, their rules and their members."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from compute import security_groups
from compute.cli import output
from compute.cli.command import INSTANCE, Noun, Verb, arg, row_id
from compute.cli.session import Session
from compute.cli.views import Record, Table, Text, View
from db.security_groups import SecurityGroup

COLUMNS = ("id", "name", "description", "project_id")


def create(session: Session, args: argparse.Namespace) -> View:
    """Add an empty group."""
    made = security_groups.create(session.db, session.context, name=args.name, description=args.description)
    return Record(facts=_facts(session, made))


def list_groups(session: Session, _args: argparse.Namespace) -> View:
    """The groups."""
    found = security_groups.get_all(session.db, session.context)
    return Table(rows=[asdict(group) for group in found], columns=COLUMNS)


def show(session: Session, args: argparse.Namespace) -> View:
    """A group with its rules."""
    return Record(facts=_facts(session, security_groups.get(session.db, session.context, args.group)))


def delete(session: Session, args: argparse.Namespace) -> View:
    """Withdraw a group that nothing needs."""
    security_groups.delete(session.db, session.context, args.group)
    return Text(lines=[f"security group {args.group} is deleted"], document={"group": args.group})


def add_rule(session: Session, args: argparse.Namespace) -> View:
    """Let more traffic in."""
    new = security_groups.rule(args.protocol, args.from_port, args.to_port, cidr=args.cidr, source=args.source_group)
    most = session.conf.quota_security_group_rules
    added = security_groups.add_rule(session.db, session.context, session.refresh, args.group, new, most=most)
    _warn(session)
    return Record(facts=asdict(added))


def delete_rule(session: Session, args: argparse.Namespace) -> View:
    """Let less traffic in."""
    security_groups.delete_rule(session.db, session.context, session.refresh, args.rule)
    _warn(session)
    return Text(lines=[f"rule {args.rule} is deleted"], document={"rule": args.rule})


def add_instance(session: Session, args: argparse.Namespace) -> View:
    """Put an instance into a group."""
    instance = session.reads.resolve(session.context, args.instance)
    security_groups.add_instance(session.db, session.context, session.refresh, args.group, instance)
    _warn(session)
    document = {"instance_id": instance.id, "group": args.group}
    return Text(lines=[f"instance {instance.id} is in security group {args.group}"], document=document)


def remove_instance(session: Session, args: argparse.Namespace) -> View:
    """Take an instance out of a group."""
    instance = session.reads.resolve(session.context, args.instance)
    security_groups.remove_instance(session.db, session.context, session.refresh, args.group, instance)
    _warn(session)
    document = {"instance_id": instance.id, "group": args.group}
    return Text(lines=[f"instance {instance.id} is not in security group {args.group} any more"], document=document)


def _warn(session: Session) -> None:
    if session.refresh.untold:
        output.complain(
            f"warning: the change is recorded, but could not be told to {', '.join(session.refresh.untold)}"
        )


def _facts(session: Session, group: SecurityGroup) -> dict[str, Any]:
    rules = [asdict(rule) for rule in security_groups.rules(session.db, group)]
    return {**asdict(group), "rules": rules}


_GROUP = arg("group", metavar="GROUP", completes="security_groups", help="name or id")

NOUN = Noun(
    name="secgroup",
    verbs=(
        Verb(
            name="create",
            run=create,
            help="add a group, which lets nothing in until it has rules",
            example="nova-manage secgroup create web --description 'public web servers'",
            arguments=(arg("name", metavar="NAME"), arg("--description", metavar="WORDS", default="")),
        ),
        Verb(name="list", run=list_groups, help="list security groups", example="nova-manage secgroup list"),
        Verb(
            name="show",
            run=show,
            help="show a group and its rules",
            example="nova-manage secgroup show web",
            arguments=(_GROUP,),
        ),
        Verb(
            name="delete",
            run=delete,
            help="withdraw a group that no instance is in and no rule names",
            example="nova-manage secgroup delete web",
            arguments=(_GROUP,),
        ),
        Verb(
            name="add-rule",
            run=add_rule,
            help="let traffic in, from a network or from the members of a group",
            example="nova-manage secgroup add-rule web tcp 80 443 --cidr 0.0.0.0/0",
            arguments=(
                _GROUP,
                arg("protocol", metavar="PROTOCOL", help="tcp, udp, icmp or any"),
                arg("from_port", metavar="FROM", nargs="?", type=int, help="first port, or icmp type; default any"),
                arg("to_port", metavar="TO", nargs="?", type=int, help="last port, or icmp code; default FROM"),
                arg("--cidr", metavar="C", help="from this network (default 0.0.0.0/0)"),
                arg("--source_group", metavar="GROUP", completes="security_groups", help="from a group's members"),
            ),
        ),
        Verb(
            name="delete-rule",
            run=delete_rule,
            help="drop a rule; `secgroup show` has the ids",
            example="nova-manage secgroup delete-rule 7",
            arguments=(arg("rule", metavar="RULE", type=row_id),),
        ),
        Verb(
            name="add-instance",
            run=add_instance,
            help="put an instance into a group",
            example="nova-manage secgroup add-instance web my-server",
            arguments=(_GROUP, INSTANCE),
        ),
        Verb(
            name="remove-instance",
            run=remove_instance,
            help="take an instance out of a group",
            example="nova-manage secgroup remove-instance web my-server",
            arguments=(_GROUP, INSTANCE),
        ),
    ),
)
