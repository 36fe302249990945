"""nova-manage vm VERB INSTANCE: what goes into the guest, and what it shows."""

from __future__ import annotations

import argparse

from compute.cli import files, follow
from compute.cli.command import INSTANCE, Verb, arg
from compute.cli.session import Session
from compute.cli.views import Record, Text, View
from compute.errors import InvalidInputError

_LONGEST_PASSWORD = 255


def set_password(session: Session, args: argparse.Namespace) -> View:
    """Set the guest's administrator password: from a file, else a new one, which is shown once."""
    given = None if args.password_file is None else _password(args.password_file)
    accepted = session.api.set_admin_password(session.context, args.instance, given)
    if given is not None:
        return follow.one(session, args, "set_password", accepted)
    return follow.one(session, args, "set_password", accepted, password=accepted.password)


def _password(path: str) -> str:
    """The first line of a file, which keeps the password out of the process list and the shell's history."""
    lines = files.read_text("--password-file", path, most=4096).splitlines()
    if not lines or not 0 < len(lines[0]) <= _LONGEST_PASSWORD or not lines[0].isprintable():
        raise InvalidInputError(f"--password-file {path!r:.80}: its first line is no password")
    return lines[0]


def inject_file(session: Session, args: argparse.Namespace) -> View:
    """Write a file inside the guest."""
    target, source = files.pair("file", args.file, "DST=SRC")
    contents = files.read("file", source, most=files.LARGEST_INJECTED)
    accepted = session.api.inject_file(session.context, args.instance, target, contents)
    return follow.one(session, args, "inject_file", accepted, path=target)


def console_log(session: Session, args: argparse.Namespace) -> View:
    """What the guest wrote on its serial console lately."""
    output = session.api.get_console_output(session.context, args.instance)
    return Text(lines=output.splitlines(), document={"output": output}, raw=True)


def vnc_console(session: Session, args: argparse.Namespace) -> View:
    """Where to reach the guest's screen, once."""
    return Record(facts=session.api.get_vnc_console(session.context, args.instance))


def diagnostics(session: Session, args: argparse.Namespace) -> View:
    """The hypervisor's counters."""
    return Record(facts=session.api.get_diagnostics(session.context, args.instance) or {})


VERBS = (
    Verb(
        name="set_password",
        run=set_password,
        help="set the guest's administrator password, a new one by default",
        example="nova-manage vm set_password my-server --wait",
        arguments=(INSTANCE, arg("--password-file", metavar="F", help="its first line, - for stdin")),
        follows=True,
    ),
    Verb(
        name="inject_file",
        run=inject_file,
        help="write a file inside the guest",
        example="nova-manage vm inject_file my-server /etc/motd=./motd --wait",
        arguments=(INSTANCE, arg("file", metavar="DST=SRC", help="path in the guest = file here")),
        follows=True,
    ),
    Verb(
        name="console_log",
        run=console_log,
        help="show what the guest wrote on its serial console",
        example="nova-manage vm console_log my-server",
        arguments=(INSTANCE,),
    ),
    Verb(
        name="vnc_console",
        run=vnc_console,
        help="get a one-time address of the guest's screen",
        example="nova-manage vm vnc_console my-server",
        arguments=(INSTANCE,),
    ),
    Verb(
        name="diagnostics",
        run=diagnostics,
        help="show the hypervisor's counters of an instance",
        example="nova-manage vm diagnostics my-server --json",
        arguments=(INSTANCE,),
    ),
)
