"""nova-manage service: the daemons, by the database's clock."""

from __future__ import annotations

import argparse
from typing import Any

from compute import hosts
from compute.cli.command import Noun, Verb, arg
from compute.cli.session import Session
from compute.cli.views import Record, Table, Text, View
from db.services import Liveness

COLUMNS = ("host", "binary", "zone", "status", "state", "age_s", "version", "heartbeat_at")


def list_services(session: Session, args: argparse.Namespace) -> View:
    """Every daemon, with 2011.2's faces."""
    found = hosts.service_list(session.db, host=args.host, binary=args.binary)
    return Table(rows=[_row(one, session.conf.service_down_time) for one in found], columns=COLUMNS)


def _row(liveness: Liveness, service_down_time_s: float) -> dict[str, Any]:
    service = liveness.service
    alive = hosts.is_alive(liveness, service_down_time_s)
    return {
        "host": service.host,
        "binary": service.binary,
        "topic": service.topic,
        "zone": service.availability_zone,
        "status": "disabled" if service.disabled else "enabled",
        "disabled_reason": service.disabled_reason,
        "state": ":-)" if alive else "XXX",
        "alive": alive,
        "age_s": liveness.age_s,
        "heartbeat_at": service.heartbeat_at,
        "report_count": service.report_count,
        "version": service.version,
    }


def enable(session: Session, args: argparse.Namespace) -> View:
    """Let the scheduler use a host again."""
    return _set_disabled(session, args, disabled=False, reason=None)


def disable(session: Session, args: argparse.Namespace) -> View:
    """Keep new instances away from a host; those it has run on."""
    return _set_disabled(session, args, disabled=True, reason=args.reason)


def _set_disabled(session: Session, args: argparse.Namespace, *, disabled: bool, reason: str | None) -> View:
    hosts.set_disabled(session.db, session.context, args.host, args.binary, disabled=disabled, reason=reason)
    word = "disabled" if disabled else "enabled"
    facts = {"host": args.host, "binary": args.binary, "status": word, "disabled_reason": reason}
    return Text(lines=[f"{args.binary} on {args.host} is {word}"], document=facts)


def delete(session: Session, args: argparse.Namespace) -> View:
    """Forget a daemon that never comes back, and let go of what deleted instances held on its host."""
    from compute.cleaning import forget_service

    down_time_s = session.conf.service_down_time
    freed = forget_service(session.db, session.context, args.host, args.binary, down_time_s)
    lines = [f"{args.binary} on {args.host} is forgotten"]
    lines += [f"instance {one} (deleted) holds nothing there any more" for one in freed]
    return Text(lines=lines, document={"host": args.host, "binary": args.binary, "freed": freed})


def describe_resource(session: Session, args: argparse.Namespace) -> View:
    """2011.2's show_host_resources, from the records."""
    return Record(facts=hosts.describe_resource(session.db, args.host))


def update_resource(session: Session, args: argparse.Namespace) -> View:
    """Have the host's daemon report what it has now."""
    hosts.require(session.db, args.host)
    session.api.update_available_resource(session.context, args.host)
    return Record(facts=hosts.describe_resource(session.db, args.host))


_HOST = arg("host", metavar="HOST", completes="hosts")
_BINARY = arg("binary", metavar="BINARY", nargs="?", default="nova-compute", help="default nova-compute")

NOUN = Noun(
    name="service",
    verbs=(
        Verb(
            name="list",
            run=list_services,
            help="list the daemons and whether they are alive",
            example="nova-manage service list",
            arguments=(
                arg("host", metavar="HOST", nargs="?", completes="hosts", help="this host's only"),
                arg("binary", metavar="BINARY", nargs="?", help="this program's only"),
            ),
        ),
        Verb(
            name="enable",
            run=enable,
            help="let new instances go to a host",
            example="nova-manage service enable host1 nova-compute",
            arguments=(_HOST, _BINARY),
        ),
        Verb(
            name="disable",
            run=disable,
            help="keep new instances away from a host",
            example="nova-manage service disable host1 nova-compute --reason 'new memory'",
            arguments=(_HOST, _BINARY, arg("--reason", metavar="WORDS", help="why, for others to read")),
        ),
        Verb(
            name="delete",
            run=delete,
            help="forget a host that is off for good, and free what its deleted instances still hold",
            example="nova-manage service delete host1",
            arguments=(_HOST, _BINARY),
        ),
        Verb(
            name="describe_resource",
            run=describe_resource,
            help="show what a host has, what is taken, and by which project",
            example="nova-manage service describe_resource host1",
            arguments=(_HOST,),
        ),
        Verb(
            name="update_resource",
            run=update_resource,
            help="have a host report its resources now",
            example="nova-manage service update_resource host1",
            arguments=(_HOST,),
        ),
    ),
)
