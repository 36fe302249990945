"""nova-manage volume: volumes, and where they are attached."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from compute import quotas, volume
from compute.cli import files, follow
from compute.cli.command import INSTANCE, Noun, UsageError, Verb, arg, row_id
from compute.cli.session import Session
from compute.cli.views import Record, Table, Text, View
from compute.sealing import Sealer
from db.volumes import Volume

_LARGEST_SECRET = 4096
COLUMNS = ("id", "name", "size_gb", "status", "instance_id", "device", "host", "location", "project_id")


def create(session: Session, args: argparse.Namespace) -> View:
    """Make a volume, or register one that is there."""
    wish = volume.Wish(
        size_gb=args.size_gb,
        name=args.name,
        description=args.description,
        host=args.host,
        limits=quotas.defaults_from(session.conf),
    )
    location, login = _location(args), _login(args)
    if location is None:
        made = volume.create(session.db, session.context, volume.Maker.from_conf(session.conf), wish)
    else:
        sealer = Sealer(session.conf.seal_key_file)
        made = volume.register(session.db, session.context, wish, location=location, login=login, sealer=sealer)
    return Record(facts=_row(session, made))


def _location(args: argparse.Namespace) -> str | None:
    if args.path is not None and args.connection is not None:
        raise UsageError("volume create: give --path or --connection, not both")
    return args.connection if args.path is None else f"file:{args.path}"


def _login(args: argparse.Namespace) -> tuple[str, str] | None:
    """User and secret; the secret comes from a file, because command lines are everybody's to read."""
    if (args.login is None) != (args.secret_file is None):
        raise UsageError("volume create: --login and --secret-file go together")
    if args.login is None:
        return None
    if args.connection is None:
        raise UsageError("volume create: --login is for a --connection")
    secret = files.read_text("--secret-file", args.secret_file, most=_LARGEST_SECRET)
    return args.login, secret.removesuffix("\n")


def list_volumes(session: Session, _args: argparse.Namespace) -> View:
    """The caller's volumes; every project's for an administrator."""
    found = volume.get_all(session.db, session.context)
    return Table(rows=[_row(session, one) for one in found], columns=COLUMNS)


def show(session: Session, args: argparse.Namespace) -> View:
    """One volume."""
    return Record(facts=_row(session, volume.get(session.db, session.context, args.volume)))


def delete(session: Session, args: argparse.Namespace) -> View:
    """End a volume."""
    gone = volume.delete(session.db, session.context, volume.Maker.from_conf(session.conf), args.volume)
    what = "and its bytes are gone" if gone.managed else f"is forgotten; what is at {gone.provider_location} stays"
    line = f"volume {gone.id} {what}"
    return Text(lines=[line], document={"id": gone.id, "location": gone.provider_location, "removed": gone.managed})


def attach(session: Session, args: argparse.Namespace) -> View:
    """Give an instance a volume."""
    accepted = session.api.attach_volume(session.context, args.instance, args.volume, args.device)
    return follow.one(session, args, "attach_volume", accepted, volume_id=args.volume, device=args.device)


def detach(session: Session, args: argparse.Namespace) -> View:
    """Take a volume from its instance."""
    accepted = session.api.detach_volume(session.context, args.volume)
    return follow.one(session, args, "detach_volume", accepted, volume_id=args.volume)


def _row(session: Session, row: Volume) -> dict[str, Any]:
    attached = volume.attachment(session.db, row)
    return {
        "id": row.id,
        "name": row.display_name,
        "description": row.display_description,
        "size_gb": row.size,
        "status": row.status,
        "attach_status": row.attach_status,
        "instance_id": attached.instance_id if attached else None,
        "device": attached.mountpoint if attached else None,
        **{key: value for key, value in asdict(row).items() if key in {"host", "user_id", "project_id", "created_at"}},
        "location": row.provider_location,
        "managed": row.managed,
        "has_login": row.sealed_auth is not None,
    }


_VOLUME = arg("volume", metavar="VOLUME", type=row_id, help="id")

NOUN = Noun(
    name="volume",
    verbs=(
        Verb(
            name="create",
            run=create,
            help="make a volume, or register one that is there",
            example="nova-manage volume create 10 --name data",
            arguments=(
                arg("size_gb", metavar="SIZE_GB"),
                arg("--path", metavar="FILE", help="register this raw file: an absolute path on the hosts"),
                arg(
                    "--connection",
                    metavar="URL",
                    help="register nbd://HOST[:PORT]/EXPORT, nbd:///EXPORT?socket=PATH, iscsi://PORTAL[:PORT]/IQN/LUN, "
                    "rbd:POOL/IMAGE, rbd://MONITOR[,MONITOR]/POOL/IMAGE or block:/dev/PATH",
                ),
                arg("--login", metavar="USER", help="who its server is told that we are (iscsi: CHAP; rbd: cephx)"),
                arg("--secret-file", metavar="F", help="a file with that user's secret, - for stdin"),
                arg("--name", metavar="N"),
                arg("--description", metavar="WORDS"),
                arg("--host", metavar="H", completes="hosts", help="the one host that has it (default: all)"),
            ),
        ),
        Verb(name="list", run=list_volumes, help="list volumes", example="nova-manage volume list"),
        Verb(name="show", run=show, help="show one volume", example="nova-manage volume show 3", arguments=(_VOLUME,)),
        Verb(
            name="delete",
            run=delete,
            help="end a volume that no instance has: a made one goes, a registered one is forgotten",
            example="nova-manage volume delete 3",
            arguments=(_VOLUME,),
        ),
        Verb(
            name="attach",
            run=attach,
            help="attach a volume to an instance",
            example="nova-manage volume attach 3 my-server /dev/vdb --wait",
            arguments=(_VOLUME, INSTANCE, arg("device", metavar="DEVICE", help="like /dev/vdb")),
            follows=True,
        ),
        Verb(
            name="detach",
            run=detach,
            help="detach a volume from its instance",
            example="nova-manage volume detach 3 --wait",
            arguments=(_VOLUME,),
            follows=True,
        ),
    ),
)
