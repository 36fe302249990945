"""How a noun declares its verbs: each verb is a function, its arguments, and one example."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from compute.errors import InvalidInputError
from compute.valid import LARGEST_INT

if TYPE_CHECKING:
    from compute.cli.session import Session
    from compute.cli.views import View


class UsageError(InvalidInputError):
    """The command line does not parse: an unknown or ambiguous word, a missing or extra argument."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One positional or option, as argparse takes it; `completes` names what the shell may offer for it."""

    names: tuple[str, ...]
    options: Mapping[str, Any]
    completes: str = ""


def seconds(text: str) -> float:
    """A number of seconds from the command line, zero or more. Raises argparse.ArgumentTypeError."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not number >= 0:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a number of seconds")
    return number


def row_id(text: str) -> int:
    """An id from the command line, of a size that every database takes. Raises argparse.ArgumentTypeError."""
    if not (text.isascii() and text.isdecimal() and len(text) < 11 and 0 < int(text) <= LARGEST_INT):
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not an id")
    return int(text)


def arg(*names: str, completes: str = "", **options: Any) -> Argument:
    """Declare an argument: `arg("name", help=...)`, `arg("--vlan", type=int)`."""
    return Argument(names, options, completes)


Run = Callable[["Session", argparse.Namespace], "View"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One action of a noun. `run(session, args)` returns what is shown; `example` is a command line that works.

    follows: it has --wait and --timeout.
    """

    name: str
    run: Run
    help: str
    example: str
    arguments: tuple[Argument, ...] = ()
    follows: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Noun:
    """One category. A noun whose only verb has no name takes none (`nova-manage verify`)."""

    name: str
    verbs: tuple[Verb, ...] = field(default_factory=tuple)

    @property
    def bare(self) -> Verb | None:
        """The verb of a noun that takes none."""
        return self.verbs[0] if [verb.name for verb in self.verbs] == [""] else None


INSTANCE = arg("instance", metavar="INSTANCE", completes="instances", help="id, uuid or name of an instance")
