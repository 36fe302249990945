"""nova-manage image: the registry of what instances boot from."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from compute import images
from compute.cli import files
from compute.cli.command import Noun, Verb, arg
from compute.cli.session import Session
from compute.cli.views import Record, Table, Text, View

COLUMNS = ("id", "name", "status", "disk_format", "size_bytes", "min_disk_gb", "is_public", "project_id")


def add(session: Session, args: argparse.Namespace) -> View:
    """Register an image, copying a local file."""
    made = images.add(
        session.db,
        session.context,
        session.images_path,
        name=args.name,
        location=args.location,
        disk_format=args.disk_format,
        sha256=args.sha256,
        kernel=args.kernel,
        ramdisk=args.ramdisk,
        min_disk_gb=args.min_disk,
        properties=dict(files.pair("--property", text) for text in args.property),
        public=not args.private,
    )
    return Record(facts=asdict(made))


def list_images(session: Session, _args: argparse.Namespace) -> View:
    """The images that the caller may boot."""
    found = images.get_all(session.db, session.context)
    return Table(rows=[asdict(one) for one in found], columns=COLUMNS)


def show(session: Session, args: argparse.Namespace) -> View:
    """Everything about one image."""
    return Record(facts=asdict(images.get(session.db, session.context, args.image)))


def delete(session: Session, args: argparse.Namespace) -> View:
    """Withdraw an image."""
    gone = images.delete(session.db, session.context, session.images_path, args.image)
    return Text(lines=[f"image {gone.name} is deleted"], document={"id": gone.id, "name": gone.name})


_IMAGE = arg("image", metavar="IMAGE", completes="images", help="name or id")

NOUN = Noun(
    name="image",
    verbs=(
        Verb(
            name="add",
            run=add,
            help="register an image; a local file is inspected and copied, a URL is recorded",
            example="nova-manage image add --name tiny --location ./tiny.qcow2 --disk_format qcow2",
            arguments=(
                arg("--name", metavar="N", required=True),
                arg("--location", metavar="PATH_OR_URL", required=True, help="a file here, or an http(s) URL"),
                arg(
                    "--disk_format",
                    metavar="FORMAT",
                    required=True,
                    help="raw, qcow2, vhd (Xen), tar (a container's root), aki (kernel) or ari (ramdisk)",
                ),
                arg("--sha256", metavar="S", help="what the bytes must add up to; computed for a local file"),
                arg("--kernel", metavar="IMG", completes="images", help="the aki image that it boots with"),
                arg("--ramdisk", metavar="IMG", completes="images", help="the ari image that it boots with"),
                arg("--min_disk", metavar="GB", default=0, help="smallest root disk, GiB"),
                arg("--property", metavar="K=V", action="append", default=[], help="may be repeated"),
                arg("--private", action="store_true", help="for its own project only"),
            ),
        ),
        Verb(name="list", run=list_images, help="list images", example="nova-manage image list"),
        Verb(
            name="show",
            run=show,
            help="show one image",
            example="nova-manage image show tiny",
            arguments=(_IMAGE,),
        ),
        Verb(
            name="delete",
            run=delete,
            help="withdraw an image and remove our copy",
            example="nova-manage image delete tiny",
            arguments=(_IMAGE,),
        ),
    ),
)
