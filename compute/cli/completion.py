"""nova-manage completion: what the shell needs to complete our words, and its questions answered by argcomplete."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

from compute.cli import nouns, parser
from compute.cli.command import Argument, Noun, Verb
from compute.cli.output import PROGRAM
from compute.cli.session import Session
from compute.cli.views import Text, View
from compute.errors import ComputeError
from db.errors import DatabaseError


def snippet(_session: Session, _args: argparse.Namespace, *, shell: str) -> View:
    """The lines to put into the shell's start-up file."""
    from argcomplete.shell_integration import shellcode

    code = str(shellcode([PROGRAM], shell=shell))
    return Text(lines=code.splitlines(), document={"shell": shell, "snippet": code}, raw=True)


def answer() -> None:
    """Answer the shell that runs us to complete a word, and end the process."""
    import argcomplete

    argcomplete.autocomplete(everything(), always_complete_options=False)


def everything() -> argparse.ArgumentParser:
    """One parser with every noun and verb in it, which only completion needs."""
    top = argparse.ArgumentParser(prog=PROGRAM, allow_abbrev=False)
    for item in parser.GLOBALS:
        parser.add(top, item)
    words = top.add_subparsers()
    for name in [*nouns.NOUNS, *nouns.ALIASES]:
        _add_noun(words.add_parser(name), nouns.load(nouns.ALIASES.get(name, name)))
    return top


def _add_noun(parent: argparse.ArgumentParser, noun: Noun) -> None:
    if noun.bare is not None:
        _add_arguments(parent, noun.bare)
        return
    words = parent.add_subparsers()
    for verb in noun.verbs:
        _add_arguments(words.add_parser(verb.name), verb)


def _add_arguments(target: argparse.ArgumentParser, verb: Verb) -> None:
    # What was said before the verb counts: a subparser's defaults would overwrite it.
    silent = [replace(item, options={**item.options, "default": argparse.SUPPRESS}) for item in parser.GLOBALS]
    known: Sequence[Argument] = [*verb.arguments, *(parser.FOLLOW if verb.follows else ()), *silent]
    for item in known:
        action: Any = parser.add(target, item)
        if item.completes:
            action.completer = partial(_names, item.completes)


def _names(kind: str, prefix: str, parsed_args: Any = None, **_kwargs: Any) -> list[str]:
    """Names in the database that begin with `prefix`; none when it cannot be read: the shell has no use for errors."""
    args = SimpleNamespace(config_file=[], project=None, user=None, admin=False)
    vars(args).update({key: value for key, value in vars(parsed_args or args).items() if key in vars(args)})
    try:
        with Session(argparse.Namespace(**vars(args))) as session:
            return [name for name in _LISTS[kind](session) if name.startswith(prefix)]
    except (ComputeError, DatabaseError, OSError):
        return []


def _instances(session: Session) -> list[str]:
    return [instance.display_name for instance in session.reads.get_all(session.context)]


def _hosts(session: Session) -> list[str]:
    from compute import hosts

    return [one.node.host for one in hosts.get_all(session.db)]


def _instance_types(session: Session) -> list[str]:
    from compute import instance_types

    return [one.name for one in instance_types.get_all(session.db)]


def _images(session: Session) -> list[str]:
    from compute import images

    return [one.name for one in images.get_all(session.db, session.context)]


def _networks(session: Session) -> list[str]:
    from compute import network

    return [one.label for one in network.get_all(session.db, session.context)]


def _security_groups(session: Session) -> list[str]:
    from compute import security_groups

    return [one.name for one in security_groups.get_all(session.db, session.context)]


_LISTS: dict[str, Callable[[Session], list[str]]] = {
    "instances": _instances,
    "hosts": _hosts,
    "instance_types": _instance_types,
    "images": _images,
    "networks": _networks,
    "security_groups": _security_groups,
}

NOUN = Noun(
    name="completion",
    verbs=tuple(
        Verb(
            name=shell,
            run=partial(snippet, shell=shell),
            help=f"print what makes {shell} complete our words",
            example=f'eval "$(nova-manage completion {shell})"',
        )
        for shell in ("bash", "zsh")
    ),
)
