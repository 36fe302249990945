"""nova-manage verify: audit the records."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from compute import hosts, verify
from compute.cli import faults
from compute.cli.command import Noun, Verb, arg
from compute.cli.session import Session
from compute.cli.views import Table, View
from compute.errors import ComputeError

COLUMNS = ("severity", "check", "subject", "host", "message")


def run(session: Session, args: argparse.Namespace) -> View:
    """Every finding, the worst first; exit 1 when one is an error."""
    reports = _reports(session, repair=args.repair) if args.hosts or args.repair else []
    found = verify.run(session.db, service_down_time_s=session.conf.service_down_time, reports=reports)
    if args.errors:
        found = [finding for finding in found if finding.severity is verify.Severity.ERROR]
    code = faults.FAILED if verify.has_errors(found) else 0
    return Table(rows=[asdict(finding) for finding in found], columns=COLUMNS, exit_code=code)


def _reports(session: Session, *, repair: bool) -> list[verify.Finding]:
    """What the daemons of all live hosts see."""
    found = []
    for one in hosts.service_list(session.db, binary="nova-compute"):
        if not hosts.is_alive(one, session.conf.service_down_time):
            continue
        host = one.service.host
        try:
            told = session.api.audit_host(session.context, host, repair=repair)
            found += [verify.seen(host, guest) for guest in told]
        except ComputeError as exc:
            found.append(verify.not_asked(host, exc))
    return found


NOUN = Noun(
    name="verify",
    verbs=(
        Verb(
            name="",
            run=run,
            help="audit the records: orders, tasks, addresses, claims, volumes; exit 1 when something is wrong",
            example="nova-manage verify --json",
            arguments=(
                arg(
                    "--hosts",
                    action="store_true",
                    help="ask every live host's daemon what it sees of guests, files and packet filters",
                ),
                arg(
                    "--repair",
                    action="store_true",
                    help="have hosts mend filters and remove files of deleted guests",
                ),
                arg("--errors", action="store_true", help="errors only, no warnings"),
            ),
        ),
    ),
)
