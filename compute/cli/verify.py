"""nova-manage verify: audit the records."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from compute import verify
from compute.cli import faults
from compute.cli.command import Noun, Verb, arg
from compute.cli.session import Session
from compute.cli.views import Table, View

COLUMNS = ("severity", "check", "subject", "host", "message")


def run(session: Session, args: argparse.Namespace) -> View:
    """Every finding, the worst first; exit 1 when one is an error."""
    found = verify.run(session.db, service_down_time_s=session.conf.service_down_time)
    if args.errors:
        found = [finding for finding in found if finding.severity is verify.Severity.ERROR]
    code = faults.FAILED if verify.has_errors(found) else 0
    return Table(rows=[asdict(finding) for finding in found], columns=COLUMNS, exit_code=code)


NOUN = Noun(
    name="verify",
    verbs=(
        Verb(
            name="",
            run=run,
            help="audit the records: orders, tasks, addresses, claims, volumes; exit 1 when something is wrong",
            example="nova-manage verify --json",
            arguments=(arg("--errors", action="store_true", help="errors only, no warnings"),),
        ),
    ),
)
