"""Command lines: options that are good anywhere, and one argparse parser for the verb that was asked for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from compute.cli import nouns
from compute.cli.command import Argument, Noun, UsageError, Verb, arg, seconds
from compute.cli.output import PROGRAM

LONGEST_ARGUMENT = 65536
END_OF_OPTIONS = "--"

GLOBALS = (
    arg("--config-file", metavar="F", action="append", default=[], help="configuration file; may be repeated"),
    arg("--format", choices=("table", "json"), default="table", help="how to show the result"),
    arg("--json", dest="format", action="store_const", const="json", default="table", help="same as --format json"),
    arg("--project", metavar="P", help="act for this project, with its rights only"),
    arg("--user", metavar="U", help="act for this user"),
    arg("--admin", action="store_true", help="with --project: keep an administrator's rights"),
    arg("--debug", action="store_true", help="show the traceback of an unexpected error"),
)
FOLLOW = (
    arg("--wait", action="store_true", help="wait until it is done; exit 1 when it fails"),
    arg("--timeout", metavar="S", type=seconds, default=600.0, help="seconds to wait at most (default 600)"),
)
_TAKES_VALUE = {"--config-file", "--format", "--project", "--user"}
_FLAGS = {"--json", "--admin", "--debug"}


class Parser(argparse.ArgumentParser):
    """argparse whose errors are UsageError, so that main() is the only one that ends the program."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog.removeprefix(PROGRAM).strip()}: {message:.400} (see -h)".removeprefix(": "))


def parse(argv: Sequence[str]) -> tuple[Verb, argparse.Namespace] | str:
    """The verb and its arguments, or the help text to show when that is what was asked for."""
    _check_bytes(argv)
    options, words, rest = _split(argv)
    if not words:
        return _asked_for_help(rest, overview())
    noun = nouns.find_noun(words[0])
    verb = noun.bare
    if verb is not None:
        rest = [*words[1:], *rest]
    elif len(words) > 1:
        verb = nouns.find_verb(noun, words[1])
    else:
        return _asked_for_help(rest, noun_help(noun))
    parser = verb_parser(noun, verb)
    if "-h" in rest or "--help" in rest:
        return parser.format_help()
    return verb, parser.parse_args(_respelt(parser, [*options, *rest]))


def verb_parser(noun: Noun, verb: Verb) -> Parser:
    """The parser of one verb, with the options that are good anywhere."""
    parser = Parser(
        prog=f"{PROGRAM} {noun.name} {verb.name}".rstrip(),
        description=verb.help,
        epilog=f"example: {verb.example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for item in [*verb.arguments, *(FOLLOW if verb.follows else ())]:
        add(parser, item)
    group = parser.add_argument_group("options of every command")
    for item in GLOBALS:
        add(group, item)
    return parser


def add(parser: argparse._ActionsContainer, item: Argument) -> argparse.Action:
    """Declare one argument on an argparse parser."""
    return parser.add_argument(*item.names, **item.options)


def overview() -> str:
    """The help of nova-manage itself."""
    lines = [f"usage: {PROGRAM} [--config-file F] [--format table|json] NOUN VERB ...", "", "nouns:"]
    lines += [f"  {name:15} {text}" for name, text in nouns.NOUNS.items()]
    lines += ["", "Any unambiguous beginning of a noun or verb will do; `flavor` is `instance_type`."]
    return "\n".join([*lines, f"example: {PROGRAM} vm list --json", ""])


def noun_help(noun: Noun) -> str:
    """The help of one noun: its verbs, and an example of the first."""
    lines = [f"usage: {PROGRAM} {noun.name} VERB ...", "", "verbs:"]
    lines += [f"  {verb.name:20} {verb.help}" for verb in noun.verbs]
    return "\n".join([*lines, "", f"example: {noun.verbs[0].example}", ""])


def _asked_for_help(rest: Sequence[str], text: str) -> str:
    if "-h" in rest or "--help" in rest:
        return text
    unknown = next((token for token in rest if token.startswith("-")), None)
    if unknown is not None:
        raise UsageError(f"unknown option {unknown!r:.80} (see -h)")
    raise UsageError(f"a {'command' if text.startswith(f'usage: {PROGRAM} [') else 'verb'} is missing (see -h)")


def _check_bytes(argv: Sequence[str]) -> None:
    for at, token in enumerate(argv, 1):
        if len(token) > LONGEST_ARGUMENT:
            raise UsageError(f"argument {at} ({token[:20]!r}...) is longer than {LONGEST_ARGUMENT} characters")
        try:
            token.encode()
        except UnicodeEncodeError as exc:
            raise UsageError(f"argument {at} is not UTF-8: {token!r:.80}") from exc


def _split(argv: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Options that are good anywhere, the noun and the verb, and all that follows.

    Tokens before the verb can only be such options; behind it the verb's own parser sees everything.
    """
    options: list[str] = []
    words: list[str] = []
    left = list(argv)
    while left and len(words) < 2:
        token = left[0]
        if token in _TAKES_VALUE:
            options += left[:2]
            del left[:2]
        elif token in _FLAGS or token.partition("=")[0] in _TAKES_VALUE:
            options.append(left.pop(0))
        elif token.startswith("-"):
            break
        else:
            words.append(left.pop(0))
    return options, words, left


def _respelt(parser: Parser, tokens: list[str]) -> list[str]:
    """Options with `-` and `_` swapped are the same options: scripts of 2011 wrote one, habits of today the other."""
    known = {name.replace("-", "_"): name for name in parser._option_string_actions if name.startswith("--")}
    respelt: list[str] = []
    for at, token in enumerate(tokens):
        if token == END_OF_OPTIONS:
            return [*respelt, *tokens[at:]]
        name, equals, value = token.partition("=")
        respelt.append(known.get(name.replace("-", "_"), name) + equals + value if name.startswith("--") else token)
    return respelt
