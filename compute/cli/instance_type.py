"""nova-manage instance_type (alias flavor): how much an instance gets."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from compute import instance_types
from compute.cli.command import Noun, Verb, arg
from compute.cli.session import Session
from compute.cli.views import Record, Table, Text, View

COLUMNS = ("name", "memory_mb", "vcpus", "local_gb", "flavorid", "swap", "rxtx_quota", "rxtx_cap", "ephemeral_gb")


def create(session: Session, args: argparse.Namespace) -> View:
    """Add a flavor."""
    made = instance_types.create(
        session.db,
        session.context,
        name=args.name,
        memory_mb=args.memory_mb,
        vcpus=args.vcpus,
        local_gb=args.local_gb,
        flavorid=args.flavorid,
        swap=args.swap,
        rxtx_quota=args.rxtx_quota,
        rxtx_cap=args.rxtx_cap,
        ephemeral_gb=args.ephemeral_gb,
    )
    return Record(facts=asdict(made))


def delete(session: Session, args: argparse.Namespace) -> View:
    """Withdraw a flavor; its instances keep it."""
    instance_types.delete(session.db, session.context, args.name, purge=args.purge)
    word = "forgotten" if args.purge else "withdrawn"
    return Text(lines=[f"instance type {args.name} is {word}"], document={"name": args.name, "purged": args.purge})


def list_types(session: Session, args: argparse.Namespace) -> View:
    """The flavors, or one of them."""
    if args.name is not None:
        found = [instance_types.get(session.db, args.name)]
    else:
        found = instance_types.get_all(session.db, inactive=args.all)
    columns = (*COLUMNS, "deleted") if args.all else COLUMNS
    return Table(rows=[asdict(one) for one in found], columns=columns)


NOUN = Noun(
    name="instance_type",
    verbs=(
        Verb(
            name="create",
            run=create,
            help="add an instance type; sizes in MiB and GiB, local_gb 0 is as large as the image",
            example="nova-manage instance_type create m1.nano 96 1 0 42",
            arguments=(
                arg("name", metavar="NAME"),
                arg("memory_mb", metavar="MEMORY_MB"),
                arg("vcpus", metavar="VCPUS"),
                arg("local_gb", metavar="LOCAL_GB"),
                arg("flavorid", metavar="FLAVORID"),
                arg("swap", metavar="SWAP", nargs="?", default=0, help="MiB of swap (default 0)"),
                arg("rxtx_quota", metavar="RXTX_QUOTA", nargs="?", default=0),
                arg("rxtx_cap", metavar="RXTX_CAP", nargs="?", default=0),
                arg("--ephemeral_gb", metavar="GIB", default=0, help="of LOCAL_GB, so much is a second, empty disk"),
            ),
        ),
        Verb(
            name="delete",
            run=delete,
            help="withdraw an instance type: it can no longer be chosen",
            example="nova-manage instance_type delete m1.nano",
            arguments=(
                arg("name", metavar="NAME", completes="instance_types"),
                arg("--purge", action="store_true", help="forget it, if no instance ever had it"),
            ),
        ),
        Verb(
            name="list",
            run=list_types,
            help="list instance types",
            example="nova-manage instance_type list",
            arguments=(
                arg("name", metavar="NAME", nargs="?", completes="instance_types", help="this one only"),
                arg("--all", action="store_true", help="withdrawn ones too"),
            ),
        ),
    ),
)
