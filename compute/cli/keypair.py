"""nova-manage keypair: public keys."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from compute import key_pairs
from compute.cli import files
from compute.cli.command import Noun, Verb, arg
from compute.cli.session import Session
from compute.cli.views import Record, Table, Text, View

COLUMNS = ("name", "user_id", "fingerprint", "created_at")


def create(session: Session, args: argparse.Namespace) -> View:
    """Put a public key by."""
    line = files.read_text("--public_key", args.public_key, most=key_pairs.LONGEST_KEY)
    return Record(facts=asdict(key_pairs.create(session.db, session.context, name=args.name, public_key=line)))


def list_keys(session: Session, args: argparse.Namespace) -> View:
    """The caller's keys; everyone's for an administrator who names no user."""
    found = key_pairs.get_all(session.db, session.context, user_id=args.user)
    return Table(rows=[asdict(one) for one in found], columns=COLUMNS)


def delete(session: Session, args: argparse.Namespace) -> View:
    """Forget a key of the caller's."""
    key_pairs.delete(session.db, session.context, args.name)
    return Text(lines=[f"key pair {args.name} is deleted"], document={"name": args.name})


NOUN = Noun(
    name="keypair",
    verbs=(
        Verb(
            name="create",
            run=create,
            help="put a public key by, under a name",
            example="nova-manage keypair create mine --public_key ~/.ssh/id_ed25519.pub",
            arguments=(
                arg("name", metavar="NAME"),
                arg("--public_key", metavar="FILE", required=True, help="an OpenSSH .pub file, or - for stdin"),
            ),
        ),
        Verb(name="list", run=list_keys, help="list public keys", example="nova-manage keypair list --user anna"),
        Verb(
            name="delete",
            run=delete,
            help="forget a public key; instances keep their copy",
            example="nova-manage keypair delete mine",
            arguments=(arg("name", metavar="NAME"),),
        ),
    ),
)
