"""nova-manage vm VERB INSTANCE: orders that change what an instance is doing, or where."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from compute import valid
from compute.cli import follow
from compute.cli.command import INSTANCE, Argument, Run, Verb, arg
from compute.cli.session import Session
from compute.cli.views import View

if TYPE_CHECKING:
    from compute.api import Accepted

_HELP = {
    "delete": "end an instance and remove its disks; outranks whatever runs on it",
    "start": "power a stopped instance on",
    "stop": "shut an instance down",
    "pause": "freeze an instance in memory",
    "unpause": "thaw a paused instance",
    "suspend": "save an instance's memory to disk and power it off",
    "resume": "restore a suspended instance",
    "rescue": "boot an instance from a rescue image, its own disk beside it",
    "unrescue": "boot a rescued instance from its own disk again",
    "lock": "let only administrators act on an instance",
    "unlock": "let its project act on an instance again",
    "confirm_resize": "keep the new size and remove the old disks",
    "revert_resize": "go back to the old size and host",
    "reset_network": "have the guest set up its network anew",
    "inject_network_info": "write the network's facts where the guest looks for them",
}


def _plain(method: str) -> Run:
    """An order that takes nothing but the instance."""

    def run(session: Session, args: argparse.Namespace) -> View:
        order: Callable[..., Accepted] = getattr(session.api, method)
        return follow.one(session, args, method, order(session.context, args.instance))

    return run


def reboot(session: Session, args: argparse.Namespace) -> View:
    """Reset the instance, or with --soft ask the guest to restart."""
    accepted = session.api.reboot(session.context, args.instance, soft=args.soft)
    return follow.one(session, args, "reboot", accepted)


def snapshot(session: Session, args: argparse.Namespace) -> View:
    """Make an image of the instance's root disk."""
    name = valid.name("image name", args.name)
    accepted = session.api.snapshot(session.context, args.instance, name)
    return follow.one(session, args, "snapshot", accepted, image=name)


def resize(session: Session, args: argparse.Namespace) -> View:
    """Give the instance another size, perhaps on another host."""
    return follow.one(session, args, "resize", session.api.resize(session.context, args.instance, args.instance_type))


def live_migration(session: Session, args: argparse.Namespace) -> View:
    """Move the running instance to another host."""
    accepted = session.api.live_migration(session.context, args.instance, args.dest)
    return follow.one(session, args, "live_migration", accepted)


def _verb(name: str, run: Run, text: str, tail: str = "", arguments: tuple[Argument, ...] = ()) -> Verb:
    example = f"nova-manage vm {name} my-server{tail}"
    return Verb(name=name, run=run, help=text, example=example, arguments=(INSTANCE, *arguments), follows=True)


VERBS = (
    *(_verb(name, _plain(name), text, " --wait") for name, text in _HELP.items()),
    _verb(
        "reboot",
        reboot,
        "restart an instance",
        " --soft --wait",
        (arg("--soft", action="store_true", help="ask the guest; reset it only if it does not answer"),),
    ),
    _verb(
        "snapshot",
        snapshot,
        "make an image of an instance's disk",
        " before-upgrade --wait",
        (arg("name", metavar="NAME", help="of the new image"),),
    ),
    _verb(
        "resize",
        resize,
        "give an instance another size; confirm_resize or revert_resize ends it",
        " m1.medium --wait",
        (arg("instance_type", metavar="INSTANCE_TYPE", completes="instance_types"),),
    ),
    _verb(
        "live_migration",
        live_migration,
        "move a running instance to another host",
        " host2 --wait",
        (arg("dest", metavar="DEST", completes="hosts"),),
    ),
)
