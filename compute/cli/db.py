"""nova-manage db: the schema."""

from __future__ import annotations

import argparse
from typing import Any

from compute.cli.command import Noun, Verb, arg
from compute.cli.session import Session
from compute.cli.views import Text, View


def sync(session: Session, args: argparse.Namespace) -> View:
    """Bring the schema to this program's revision, or the one given."""
    from db import migration

    migration.sync(session.any_db, args.revision)
    return _revisions(session, "the database is at revision {database}")


def version(session: Session, _args: argparse.Namespace) -> View:
    """Both revisions, whether they agree or not."""
    return _revisions(session, "the database is at revision {database}, this program needs {program}")


def _revisions(session: Session, sentence: str) -> View:
    from db import migration

    facts: dict[str, Any] = {"database": migration.version(session.any_db), "program": migration.HEAD}
    said = {name: revision or "none" for name, revision in facts.items()}
    return Text(lines=[sentence.format(**said)], document=facts)


_REVISION = arg("revision", metavar="REVISION", nargs="?", default="head", help="another revision than ours")

NOUN = Noun(
    name="db",
    verbs=(
        Verb(
            name="sync",
            run=sync,
            help="create the tables, or bring them to this program's revision",
            example="nova-manage db sync",
            arguments=(_REVISION,),
        ),
        Verb(name="version", run=version, help="show the schema's revision", example="nova-manage db version"),
    ),
)
