"""Recorded calls held against the published data model, where its files are at hand.

The server itself holds every call against the part of it that is in model.txt.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xmlrpc.client import DateTime

from tests.fakes.xenapi.model import Type, parse_type

if TYPE_CHECKING:
    from tests.fakes.xenapi.pool import Call

PUBLISHED = Path(__file__).resolve().parents[4] / "shared" / "xenapi"
TRANSFERS = ("PUT /", "GET /", "CONNECT /")
MISUSE = {"MESSAGE_METHOD_UNKNOWN", "MESSAGE_PARAMETER_COUNT_MISMATCH", "FIELD_TYPE_ERROR"}
LOGIN = "session.login_with_password"
PYTHON: dict[str, type[Any]] = {
   "string": str, "int": str, "float": float, "bool": bool, "datetime": DateTime, "ref": str, "enum": str,
          "set": list, "map": dict, "record": dict}  # fmt: skip


class Published:
    """The published data model: xenapi.json with optional_args.json, in a folder."""

    def __init__(self, folder: Path) -> None:
        model = json.loads((folder / "xenapi.json").read_text())
        self.optional: dict[str, Any] = json.loads((folder / "optional_args.json").read_text())
        self.classes: dict[str, Any] = {one["name"]: one for one in model}
        self.messages = {f"{one['name']}.{message['name']}": message for one in model for message in one["messages"]}
        self.enums = {enum["name"]: {value["name"] for value in enum["values"]} for one in model
                      for enum in one["enums"]}  # fmt: skip

    def complaints(self, call: Call) -> Iterator[str]:
        """What is wrong with a call."""
        name = call.method.removeprefix("Async.")
        message = self.messages.get(name)
        if message is None or message["lifecycle"]["state"] == "Removed_s":
            yield f"{name}: {'is removed' if message else 'does not exist'}"
            return
        if call.method != name and name in self.optional["_sync_only"]:
            yield f"{call.method}: has no Async form"
        params = message["params"][0 if name == LOGIN else 1 :]
        loose = sum(1 for *_, may_be_absent in self.optional.get(name, []) if may_be_absent)
        if not len(params) - loose <= len(call.args) <= len(params):
            yield f"{name}: {len(call.args)} arguments, {len(params)} expected"
        for param, value in zip(params, call.args, strict=False):
            for reason in self._wrong(parse_type(param["type"]), value):
                yield f"{name}: {param['name']} {reason}"

    def _wrong(self, kind: Type, value: Any) -> Iterator[str]:
        if not isinstance(value, PYTHON[kind.kind]):
            yield f"is {value!r}, no {kind.kind}"
        elif kind.kind == "int" and not value.lstrip("-").isdecimal():
            yield f"is {value!r}, no decimal number"
        elif kind.kind == "ref" and not value.startswith("OpaqueRef:"):
            yield f"is {value!r}, no reference"
        elif kind.kind == "enum" and value not in self.enums[kind.name]:
            yield f"is {value!r}, none of {sorted(self.enums[kind.name])}"
        else:
            yield from self._wrong_inside(kind, value)

    def _wrong_inside(self, kind: Type, value: Any) -> Iterator[str]:
        if kind.kind == "set":
            for one in value:
                yield from self._wrong(kind.inner[0], one)
        elif kind.kind == "map":
            for key, one in value.items():
                yield from self._wrong(kind.inner[0], key)
                yield from self._wrong(kind.inner[1], one)
        elif kind.kind == "record":
            yield from self._wrong_record(self.classes[kind.name]["fields"], value)

    def _wrong_record(self, fields: list[dict[str, Any]], value: dict[str, Any]) -> Iterator[str]:
        known = {field["name"]: field for field in fields if field["lifecycle"]["state"] != "Removed_s"}
        given = {field["name"] for field in known.values() if field["qualifier"] != "RO/runtime"}
        for name in value.keys() - known.keys():
            yield f"has {name}, which is no field"
        for name in given - value.keys():
            if known[name].get("default") is None:
                yield f"lacks {name}"
        for name in value.keys() & known.keys():
            yield from (
                f"has {name} that {reason}" for reason in self._wrong(parse_type(known[name]["type"]), value[name])
            )


@cache
def published(folder: Path = PUBLISHED) -> Published:
    """The published data model beside the project; FileNotFoundError where it is not."""
    return Published(folder)


def violations(calls: Iterable[Call], folder: Path = PUBLISHED) -> list[str]:
    """What is wrong with the calls, by the published data model; empty when nothing is.

    Where its files are absent, what the server refused as not in its own part of the model.
    """
    made = [call for call in list(calls) if not call.method.startswith(TRANSFERS)]
    if folder.is_dir():
        return [complaint for call in made for complaint in published(folder).complaints(call)]
    return [f"{call.method}: {', '.join(call.error)}" for call in made if call.error and _is_misuse(call.error)]


def _is_misuse(error: list[str]) -> bool:
    return error[0] in MISUSE or "Dispatcher_FieldNotFound" in error[-1]
