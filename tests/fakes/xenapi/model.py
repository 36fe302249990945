"""The published data model as far as the simulator serves it, read from model.txt, which derive.py writes.

class VM: create destroy ...            the generated messages beside the accessors of fields
* name_label: string = ""               RW: has a setter, and may be given to create
+ power_state: enum ... = Halted        may be given to create
- domid: int                            set by the server alone
! clone(vm: VM ref, new_name: string) -> VM ref
~ logout() -> void                      has no Async form
enum vm_power_state: Halted Paused Running Suspended
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("model.txt")
SERVERS, CONSTRUCTOR, WRITABLE = "-", "+", "*"
_MEMBER = re.compile(r"([*+-]) (\w+): (.*?)(?: = (.*))?$")
_MESSAGE = re.compile(r"([!~]) (\w+)\((.*)\) -> (.+)$")


@dataclass(frozen=True, slots=True)
class Type:
    """kind: string, int, float, bool, datetime, ref, enum, set, map, record, void, batch or option.

    name: the class of a ref or record, or the enum's. inner: the element of a set, or key and value of a map.
    """

    kind: str
    name: str = ""
    inner: tuple[Type, ...] = ()

    def zero(self) -> Any:
        """The value of a field that nothing was said about."""
        zeroes = {"set": [], "map": {}, "int": 0, "float": 0.0, "bool": False, "datetime": "19700101T00:00:00Z"}
        found = zeroes.get(self.kind, "")
        return type(found)() if self.kind in {"set", "map"} else "OpaqueRef:NULL" if self.kind == "ref" else found


@dataclass(frozen=True, slots=True)
class Field:
    """A field: qualifier is one of SERVERS, CONSTRUCTOR and WRITABLE; default is None when it must be given."""

    name: str
    type: Type
    qualifier: str
    default: Any = None

    def initial(self) -> Any:
        """The field's default, or its type's zero."""
        if self.default is None:
            return self.type.zero()
        return self.default.copy() if isinstance(self.default, list | dict) else self.default


@dataclass(frozen=True, slots=True)
class Message:
    """A message: arguments without the session, as (name, type); the last `optional` of them may be absent."""

    name: str
    arguments: tuple[tuple[str, Type], ...]
    result: Type
    optional: int = 0
    has_async: bool = True


@dataclass(slots=True)
class Class:
    """A class of the data model. messages has the generated ones too."""

    name: str
    fields: dict[str, Field] = field(default_factory=dict)
    messages: dict[str, Message] = field(default_factory=dict)


@dataclass(slots=True)
class Model:
    """All classes and enums by name."""

    classes: dict[str, Class] = field(default_factory=dict)
    enums: dict[str, frozenset[str]] = field(default_factory=dict)

    def message(self, full: str) -> Message | None:
        """The message of this full name, as `VM.clone`."""
        kind, _, name = full.partition(".")
        return self.classes[kind].messages.get(name) if kind in self.classes else None


@cache
def parse_type(text: str) -> Type:
    """A type as the data model writes it: `string`, `VM ref set`, `(VDI ref -> SR ref) map`, `enum on_boot`."""
    if text.endswith(" set"):
        return Type("set", inner=(parse_type(text[:-4]),))
    if text.endswith(" option"):
        return Type("option", inner=(parse_type(text[:-7]),))
    if text.endswith(" map"):
        key, value = _halves(text[1:-5])
        return Type("map", inner=(parse_type(key), parse_type(value)))
    for kind in ("ref", "record"):
        if text.endswith(f" {kind}"):
            return Type(kind, text[: -len(kind) - 1])
    if text.startswith("enum "):
        return Type("enum", text[5:])
    return Type("batch" if text == "an event batch" else text)


def _halves(text: str) -> tuple[str, str]:
    """The key and the value of a map, which may be a map itself."""
    depth = 0
    for at, letter in enumerate(text):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth == 0 and text.startswith(" -> ", at):
            return text[:at], text[at + 4 :]
    raise ValueError(f"no map: {text}")


def _default(text: str, kind: Type) -> Any:
    if kind.kind in {"set", "map"}:
        return _collection(text, kind)
    if kind.kind == "bool":
        return text == "true"
    if kind.kind in {"int", "float"}:
        return int(text) if kind.kind == "int" else float(text)
    return {"Null": "OpaqueRef:NULL"}.get(text, text.strip('"'))


def _collection(text: str, kind: Type) -> Any:
    """`{}`, `{0}` or `{"key" -> "value", ...}`."""
    if kind.kind == "map":
        return dict(re.findall(r'"([^"]*)" -> "([^"]*)"', text))
    return [_default(one, kind.inner[0]) for one in text.strip("{}").split(", ") if one]


def _arguments(text: str) -> Iterator[tuple[str, bool, Type]]:
    """name: type, each, where a ? after the name marks what may be absent."""
    for part in filter(None, text.split(", ")):
        name, _, kind = part.partition(": ")
        yield name.rstrip("?"), name.endswith("?"), parse_type(kind)


def _message(mark: str, name: str, arguments: str, result: str) -> Message:
    found = list(_arguments(arguments))
    typed = tuple((argument, kind) for argument, _, kind in found)
    return Message(name, typed, parse_type(result), sum(loose for _, loose, _ in found), mark == "!")


def _generated(one: Class, names: list[str]) -> Iterator[Message]:
    """The messages that every class has for its fields, and those of `names`."""
    self_, void = ("self", parse_type(f"{one.name} ref")), parse_type("void")
    every = {
        "get_all": ((), f"{one.name} ref set"),
        "get_all_records": ((), f"({one.name} ref -> {one.name} record) map"),
        "get_by_uuid": ((("uuid", parse_type("string")),), f"{one.name} ref"),
        "get_by_name_label": ((("label", parse_type("string")),), f"{one.name} ref set"),
        "get_record": ((self_,), f"{one.name} record"),
        "create": ((("args", parse_type(f"{one.name} record")),), f"{one.name} ref"),
        "destroy": ((self_,), "void"),
    }
    for name in names:
        arguments, result = every[name]
        yield Message(name, arguments, parse_type(result), has_async=name in {"create", "destroy"})
    for member in one.fields.values():
        yield Message(f"get_{member.name}", (self_,), member.type, has_async=False)
        if member.qualifier == WRITABLE:
            for prefix, extra in _setters(member):
                yield Message(f"{prefix}_{member.name}", (self_, *extra), void, has_async=False)


def _setters(member: Field) -> Iterator[tuple[str, tuple[tuple[str, Type], ...]]]:
    yield "set", (("value", member.type),)
    if member.type.kind == "set":
        yield from ((prefix, (("value", member.type.inner[0]),)) for prefix in ("add", "remove"))
    if member.type.kind == "map":
        key, value = member.type.inner
        yield "add_to", (("key", key), ("value", value))
        yield "remove_from", (("key", key),)


@cache
def load(path: Path = TABLE) -> Model:
    """The model of a table."""
    model, one, names = Model(), Class(""), list[str]()
    for line in [*path.read_text().splitlines(), ""]:
        if line.startswith("class "):
            title, _, made = line[6:].partition(":")
            one, names = model.classes.setdefault(title, Class(title)), made.split()
        elif line.startswith("enum "):
            title, _, values = line[5:].partition(":")
            model.enums[title] = frozenset(values.split())
        elif found := _MEMBER.match(line):
            mark, name, kind, default = found.groups()
            typed = parse_type(kind)
            one.fields[name] = Field(name, typed, mark, None if default is None else _default(default, typed))
        elif found := _MESSAGE.match(line):
            message = _message(*found.groups())
            one.messages[message.name] = message
        elif one.name:
            one.messages = {message.name: message for message in _generated(one, names)} | one.messages
            one = Class("")
    return model
