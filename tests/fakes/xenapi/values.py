"""Typed values on the wire: integers as decimal strings, sets as arrays, maps and records as structs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from xml.sax.saxutils import escape
from xmlrpc.client import DateTime

from tests.fakes.xenapi.errors import ApiError, internal_error
from tests.fakes.xenapi.model import SERVERS, Field, Model, Type

_INT = re.compile(r"-?\d+\Z")
_DATE = re.compile(r"\d{8}T\d\d:\d\d:\d\dZ?\Z")
_PLAIN: dict[str, type | tuple[type, ...]] = {"string": str, "bool": bool, "float": float, "ref": str, "option": object}


class Reader:
    """Takes values off the wire, strictly: what is not of its type is FIELD_TYPE_ERROR with the field's name."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._special: dict[str, Callable[[Type, Any, str], Any]] = {
            "int": self._int, "datetime": self._datetime, "enum": self._enum, "set": self._set, "map": self._map,
            "record": self._record,
        }  # fmt: skip

    def read(self, kind: Type, value: Any, name: str) -> Any:
        """The value as the simulator keeps it."""
        special = self._special.get(kind.kind)
        if special:
            return special(kind, value, name)
        if not isinstance(value, _PLAIN[kind.kind]):
            raise ApiError("FIELD_TYPE_ERROR", name)
        return value

    def _int(self, _kind: Type, value: Any, name: str) -> int:
        if not isinstance(value, str) or not _INT.match(value):
            raise ApiError("FIELD_TYPE_ERROR", name)
        return int(value)

    def _datetime(self, _kind: Type, value: Any, name: str) -> str:
        if not isinstance(value, DateTime) or not _DATE.match(str(value)):
            raise ApiError("FIELD_TYPE_ERROR", name)
        return str(value)

    def _enum(self, kind: Type, value: Any, name: str) -> str:
        if not isinstance(value, str) or value not in self._model.enums[kind.name]:
            raise ApiError("FIELD_TYPE_ERROR", name)
        return value

    def _set(self, kind: Type, value: Any, name: str) -> list[Any]:
        if not isinstance(value, list):
            raise ApiError("FIELD_TYPE_ERROR", name)
        return [self.read(kind.inner[0], one, name) for one in value]

    def _map(self, kind: Type, value: Any, name: str) -> dict[Any, Any]:
        if not isinstance(value, dict):
            raise ApiError("FIELD_TYPE_ERROR", name)
        key, inner = kind.inner
        return {self.read(key, one, name): self.read(inner, other, name) for one, other in value.items()}

    def _record(self, kind: Type, value: Any, name: str) -> dict[str, Any]:
        """What a constructor is given; a mandatory field that is absent is an internal error, as xapi has it."""
        if not isinstance(value, dict):
            raise ApiError("FIELD_TYPE_ERROR", name)
        fields = self._model.classes[kind.name].fields
        if unknown := value.keys() - fields.keys():
            raise ApiError("FIELD_TYPE_ERROR", min(unknown))
        return {one.name: self._member(one, value) for one in fields.values() if one.qualifier != SERVERS}

    def _member(self, one: Field, given: Mapping[str, Any]) -> Any:
        if one.name in given:
            return self.read(one.type, given[one.name], one.name)
        if one.default is None:
            raise internal_error(f'Server_helpers.Dispatcher_FieldNotFound("{one.name}")')
        return one.initial()


def text(value: str) -> str:
    """A string as a <value>."""
    return f"<value>{escape(value)}</value>"


def struct(members: Mapping[str, str]) -> str:
    """A <value> of members that are <value>s already."""
    inner = "".join(f"<member><name>{escape(name)}</name>{value}</member>" for name, value in members.items())
    return f"<value><struct>{inner}</struct></value>"


def array(items: list[str]) -> str:
    """A <value> of items that are <value>s already."""
    return f"<value><array><data>{''.join(items)}</data></array></value>"


_WRITERS: dict[str, Callable[[Any], str]] = {
    "int": lambda value: f"<value>{value}</value>",
    "bool": lambda value: f"<value><boolean>{int(value)}</boolean></value>",
    "float": lambda value: f"<value><double>{float(value)!r}</double></value>",
    "datetime": lambda value: f"<value><dateTime.iso8601>{value}</dateTime.iso8601></value>",
    "void": lambda _value: text(""),
}


def write(kind: Type, value: Any) -> str:
    """A value as XML; not for records, which need their class."""
    if kind.kind == "set":
        return array([write(kind.inner[0], one) for one in value])
    if kind.kind == "map":
        return struct({str(key): write(kind.inner[1], one) for key, one in value.items()})
    return _WRITERS.get(kind.kind, text)(value)


def response(value: str) -> bytes:
    """A successful answer around a <value>."""
    return _envelope(struct({"Status": text("Success"), "Value": value}))


def failure(description: list[str]) -> bytes:
    """An answer that is an error."""
    return _envelope(struct({"Status": text("Failure"), "ErrorDescription": array([text(one) for one in description])}))


def fault(code: int, message: str) -> bytes:
    """A fault of XML-RPC itself."""
    inner = struct({"faultCode": f"<value><int>{code}</int></value>", "faultString": text(message)})
    return f"<?xml version='1.0'?><methodResponse><fault>{inner}</fault></methodResponse>".encode()


def _envelope(value: str) -> bytes:
    return f"<?xml version='1.0'?><methodResponse><params><param>{value}</param></params></methodResponse>".encode()
