"""nova-manage volume: volumes, and where they are attached."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from compute import quotas, volume
from compute.cli import follow
from compute.cli.command import INSTANCE, Noun, Verb, arg
from compute.cli.session import Session
from compute.cli.views import Record, Table, Text, View
from db.volumes import Volume

COLUMNS = ("id", "name", "size_gb", "status", "instance_id", "device", "host", "location", "project_id")


def create(session: Session, args: argparse.Namespace) -> View:
    """Record a volume that lies in a file."""
    made = volume.create(
        session.db,
        session.context,
        size_gb=args.size_gb,
        path=args.path,
        name=args.name,
        description=args.description,
        host=args.host,
        limits=quotas.defaults_from(session.conf),
    )
    return Record(facts=_row(session, made))


def list_volumes(session: Session, _args: argparse.Namespace) -> View:
    """The caller's volumes; every project's for an administrator."""
    found = volume.get_all(session.db, session.context)
    return Table(rows=[_row(session, one) for one in found], columns=COLUMNS)


def show(session: Session, args: argparse.Namespace) -> View:
    """One volume."""
    return Record(facts=_row(session, volume.get(session.db, session.context, args.volume)))


def delete(session: Session, args: argparse.Namespace) -> View:
    """Forget a volume; its file stays."""
    volume.delete(session.db, session.context, args.volume)
    return Text(lines=[f"volume {args.volume} is forgotten; its file stays"], document={"id": args.volume})


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
    }


_VOLUME = arg("volume", metavar="VOLUME", type=int, help="id")

NOUN = Noun(
    name="volume",
    verbs=(
        Verb(
            name="create",
            run=create,
            help="record a volume whose bytes are a file on the hosts",
            example="nova-manage volume create 10 --path /srv/volumes/data.raw --name data",
            arguments=(
                arg("size_gb", metavar="SIZE_GB"),
                arg("--path", metavar="FILE", required=True, help="absolute path of the raw file on the hosts"),
                arg("--name", metavar="N"),
                arg("--description", metavar="WORDS"),
                arg("--host", metavar="H", completes="hosts", help="the one host that has the file (default: all)"),
            ),
        ),
        Verb(name="list", run=list_volumes, help="list volumes", example="nova-manage volume list"),
        Verb(name="show", run=show, help="show one volume", example="nova-manage volume show 3", arguments=(_VOLUME,)),
        Verb(
            name="delete",
            run=delete,
            help="forget a volume that no instance has",
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
