"""The nouns of nova-manage, and 2011.2's way to shorten a word: any unambiguous beginning will do."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping

from compute.cli.command import Noun, UsageError, Verb

NOUNS: Mapping[str, str] = {
    "db": "the database's schema",
    "service": "the daemons and whether they are alive",
    "host": "compute hosts: what they have and what is taken",
    "instance_type": "flavors: how much an instance gets",
    "image": "what instances boot from",
    "network": "networks and their addresses",
    "keypair": "public keys that instances are given",
    "quota": "how much a project may have",
    "secgroup": "security groups and their rules",
    "servergroup": "groups of instances that go on one host, or on different ones",
    "volume": "volumes and where they are attached",
    "vm": "instances",
    "action": "the journal of operations",
    "verify": "audit the records",
    "completion": "shell completion",
}
ALIASES: Mapping[str, str] = {"flavor": "instance_type"}


def load(name: str) -> Noun:
    """Import the module of one noun, and no other."""
    noun = importlib.import_module(f"compute.cli.{name}").NOUN
    if not isinstance(noun, Noun):
        raise TypeError(f"compute.cli.{name}.NOUN is no Noun")
    return noun


def find_noun(word: str) -> Noun:
    """The noun that `word` is, or begins; UsageError listing the candidates otherwise."""
    name = lazy_match(word, [*NOUNS, *ALIASES], "command")
    return load(ALIASES.get(name, name))


def find_verb(noun: Noun, word: str) -> Verb:
    """The verb of `noun` that `word` is, or begins; UsageError listing the candidates otherwise."""
    by_name = {verb.name: verb for verb in noun.verbs}
    return by_name[lazy_match(word, by_name, f"{noun.name} action")]


def lazy_match(word: str, names: Iterable[str], kind: str) -> str:
    """The one name that `word` equals or begins, `-` and `_` being the same."""
    known = {name.replace("-", "_"): name for name in names}
    wanted = word.replace("-", "_")
    if wanted in known:
        return known[wanted]
    found = sorted(name for plain, name in known.items() if wanted and plain.startswith(wanted))
    if not found:
        raise UsageError(f"unknown {kind} {word!r:.80}: one of {', '.join(sorted(known.values()))}")
    if len(found) > 1:
        raise UsageError(f"{kind} {word!r:.80} is ambiguous: {', '.join(found)}")
    return found[0]
