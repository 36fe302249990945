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
    if args.image is None and not args.block_device_mapping:
        raise UsageError("vm boot: give --image, or a --block_device_mapping for /dev/vda")
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
        "network": args.network[0] if args.network else None,
        "networks": tuple(args.network[1:]),
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
        "block_device_mapping": [_mapping(text) for text in args.block_device_mapping],
    }


def _mapping(text: str) -> dict[str, Any]:
    """`/dev/vda=VOLUME` or, as novaclient writes it, `vda=VOLUME:TYPE:SIZE:DELETE` with TYPE and SIZE empty."""
    device, volume = files.pair("--block_device_mapping", text, "DEVICE=VOLUME")
    words = volume.split(":")
    if len(words) not in {1, 4} or any(words[1:3]) or words[3:] not in ([], [""], ["0"], ["1"]):
        raise UsageError(f"--block_device_mapping {text!r:.80} is not of the form DEVICE=VOLUME[:::DELETE]")
    return {"device_name": device, "volume_id": words[0], "delete_on_termination": words[3:] == ["1"]}


def _file(text: str) -> tuple[str, bytes]:
    target, source = files.pair("--file", text, "DST=SRC")
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
        arg("--image", metavar="I", completes="images", help="name or id; may be left out with a volume at /dev/vda"),
        arg(
            "--block_device_mapping",
            metavar="DEVICE=VOLUME[:::1]",
            action="append",
            default=[],
            help="a volume from the start, at /dev/vda to boot from it; :::1 deletes it with the instance; repeatable",
        ),
        arg(
            "--network",
            metavar="NET",
            action="append",
            default=[],
            completes="networks",
            help="label or id (default: the project's); an interface on each, in the order of their ids; repeatable",
        ),
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
