"""nova-manage vm boot: order new instances."""

from __future__ import annotations

import argparse
from typing import Any

from compute import valid
from compute.cli import files, follow
from compute.cli.command import UsageError, Verb, arg
from compute.cli.session import Session
from compute.cli.views import View

_MOST_AT_ONCE = 1000


def boot(session: Session, args: argparse.Namespace) -> View:
    """Order instances; with --wait, until every one of them runs or failed."""
    if args.host is not None and args.availability_zone is not None:
        raise UsageError("vm boot: give --host or --availability_zone, not both")
    count = valid.whole("--count", args.count, least=1, most=_MOST_AT_ONCE)
    accepted = session.api.create(
        session.context,
        instance_type=args.instance_type or session.conf.default_instance_type,
        image=args.image,
        min_count=count,
        max_count=count,
        display_name=valid.name("instance name", args.name),
        **_placement(args),
        **_content(args),
    )
    return follow.many(session, args, "boot", accepted)


def _placement(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "availability_zone": args.availability_zone,
        "host": args.host,
        "network": args.network,
        "security_groups": tuple(args.secgroup),
        "server_group": args.group,
    }


def _content(args: argparse.Namespace) -> dict[str, Any]:
    user_data = None
    if args.user_data is not None:
        user_data = files.read("--user-data", args.user_data, most=files.LARGEST_USER_DATA)
    return {
        "display_description": args.description,
        "kernel": args.kernel,
        "ramdisk": args.ramdisk,
        "key_name": args.key,
        "user_data": user_data,
        "metadata": valid.properties("--meta", dict(files.pair("--meta", text) for text in args.meta)),
        "injected_files": [_file(text) for text in args.file],
    }


def _file(text: str) -> tuple[str, bytes]:
    target, source = files.pair("--file", text)
    return target, files.read("--file", source, most=files.LARGEST_INJECTED)


BOOT = Verb(
    name="boot",
    run=boot,
    help="boot instances",
    example="nova-manage vm boot --name web --instance_type m1.small --image tiny --wait",
    follows=True,
    arguments=(
        arg("--name", metavar="N", required=True, help="their name"),
        arg("--instance_type", metavar="T", completes="instance_types", help="default: default_instance_type"),
        arg("--image", metavar="I", required=True, completes="images", help="name or id"),
        arg("--network", metavar="NET", completes="networks", help="label or id (default: the project's)"),
        arg("--secgroup", metavar="G", action="append", default=[], completes="security_groups", help="repeatable"),
        arg("--key", metavar="K", help="a key pair of the user's"),
        arg("--user-data", metavar="F", help="a file for cloud-init, - for stdin, at most 64 KiB"),
        arg("--file", metavar="DST=SRC", action="append", default=[], help="a file for the guest; repeatable"),
        arg("--meta", metavar="K=V", action="append", default=[], help="metadata; repeatable"),
        arg("--host", metavar="H", completes="hosts", help="on this host"),
        arg("--availability_zone", metavar="Z", help="in this zone"),
        arg("--group", metavar="SERVERGROUP", help="name or id of a server group"),
        arg("--count", metavar="N", default=1, help="how many"),
        arg("--kernel", metavar="IMG", completes="images", help="instead of the image's own"),
        arg("--ramdisk", metavar="IMG", completes="images", help="instead of the image's own"),
        arg("--description", metavar="WORDS"),
    ),
)
