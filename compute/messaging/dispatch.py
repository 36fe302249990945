"""Which verbs the bus may call, with which arguments, and how errors go back.

A verb is a method marked `@exposed` in the manager's own class: nothing underscored, nothing inherited. A message is
held against the contract before anything of it is used, so that bad input is an answer and not an accident.
"""

from __future__ import annotations

import inspect
import logging
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from oslo_messaging import Target
from oslo_messaging.rpc import dispatcher as oslo_dispatcher

from compute.db_errors import translated
from compute.errors import ClaimLostError, InvalidInputError
from compute.messaging.serializer import ContextSerializer

LOG = logging.getLogger(__name__)
MAX_ARGUMENTS_BYTES = 1024 * 1024
MAX_DEPTH = 20
MAX_ID = 2**31 - 1
MAX_LOGGED = 500
Verb = TypeVar("Verb", bound=Callable[..., Any])
_VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})(\.\d{1,6})?")
_ANSWERS = (oslo_dispatcher.NoSuchMethod, oslo_dispatcher.UnsupportedVersion)


def exposed(verb: Verb) -> Verb:
    """Mark a manager's method as callable over the bus."""
    verb.__dict__["exposed"] = True
    return verb


def verbs_of(manager: object) -> dict[str, Callable[..., Any]]:
    """The exposed methods of the manager's own class, by name."""
    return {
        name: getattr(manager, name)
        for name, member in vars(type(manager)).items()
        if getattr(member, "exposed", False) and not name.startswith("_")
    }


def _names(signature: inspect.Signature) -> tuple[frozenset[str], frozenset[str]]:
    """The arguments that a verb needs, and all that it names, without the context."""
    named = [one for one in list(signature.parameters.values())[1:] if one.kind is not one.VAR_KEYWORD]
    return frozenset(one.name for one in named if one.default is one.empty), frozenset(one.name for one in named)


class Endpoint:
    """What oslo.messaging sees: the version, and attributes for verbs only."""

    def __init__(self, manager: object, version: str) -> None:
        self.target = Target(version=version)
        self.hints: dict[str, dict[str, Any]] = {}
        self._signatures: dict[str, inspect.Signature] = {}
        self._names: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
        for name, verb in verbs_of(manager).items():
            self.hints[name] = typing.get_type_hints(verb)
            self._signatures[name] = inspect.signature(verb)
            self._names[name] = _names(self._signatures[name])
            setattr(self, name, verb)

    def bind(self, verb: str, args: Mapping[str, Any]) -> None:
        """TypeError unless the verb takes arguments of these names."""
        needed, known = self._names[verb]
        if not needed <= args.keys() <= known:  # seldom, and then with more to say, or because it takes any name
            self._signatures[verb].bind(None, **args)

    def serves(self, version: str) -> bool:
        """True for this major version up to this minor one."""
        theirs, ours = _VERSION.fullmatch(version), _VERSION.fullmatch(str(self.target.version))
        if theirs is None or ours is None:
            return False
        return theirs[1] == ours[1] and int(theirs[2]) <= int(ours[2])


class _VerbsOnly(oslo_dispatcher.RPCAccessPolicyBase):  # type: ignore[misc]
    def is_allowed(self, endpoint: Endpoint, method: str) -> bool:
        return method in endpoint.hints


class Dispatcher(oslo_dispatcher.RPCDispatcher):  # type: ignore[misc]
    """Checks message and arguments, calls the verb, and keeps expected errors out of the log's tracebacks."""

    def __init__(self, manager: object, version: str) -> None:
        self._endpoint = Endpoint(manager, version)
        super().__init__([self._endpoint], ContextSerializer(), _VerbsOnly)

    def dispatch(self, incoming: Any) -> Any:
        """Answer one message; every expected error goes back to a caller by class."""
        try:
            # Before oslo.messaging looks: one that it refuses by itself leaves a sign-of-life thread behind for ever.
            addressed(incoming.message, self._endpoint)
            return super().dispatch(incoming)
        except ClaimLostError as exc:
            LOG.debug("%s", exc)
            raise oslo_dispatcher.ExpectedException from exc
        except Exception as exc:
            if not _is_expected(exc):
                raise
            LOG.info("%s refused: %s", one_line(incoming.message.get("method"), 80), one_line(exc))
            raise oslo_dispatcher.ExpectedException from exc

    def _do_dispatch(self, endpoint: Endpoint, method: str, ctxt: Any, args: Any) -> Any:
        context = self.serializer.deserialize_context(ctxt)
        with translated():  # callers are promised the classes of compute and virt
            return getattr(endpoint, method)(context, **checked(method, endpoint, args))


def one_line(value: object, most: int = MAX_LOGGED) -> str:
    """What a stranger sent, fit for a log: one line of printable characters, not long."""
    text = " ".join(str(value)[: most * 4].split())
    return "".join(char if char.isprintable() else "?" for char in text)[:most]


def _is_expected(exc: Exception) -> bool:
    return getattr(exc, "expected", False) or isinstance(exc, _ANSWERS)


def addressed(message: Mapping[str, Any], endpoint: Endpoint) -> None:
    """Raise unless the message names a verb of ours in a version that we serve."""
    method, version = message.get("method"), message.get("version", "1.0")
    if not isinstance(method, str):
        raise InvalidInputError(f"a message must name its method, not {type(method).__name__}")
    name = one_line(method, 80)
    if not isinstance(version, str) or message.get("namespace") is not None or not endpoint.serves(version):
        raise oslo_dispatcher.UnsupportedVersion(one_line(version, 20), method=name)
    if method not in endpoint.hints:
        raise oslo_dispatcher.NoSuchMethod(name)


def checked(method: str, endpoint: Endpoint, args: Any) -> dict[str, Any]:
    """The arguments, if the verb takes exactly these; InvalidInputError naming the one that is wrong."""
    if not isinstance(args, dict):
        raise InvalidInputError(f"{method}: arguments must be an object, not {type(args).__name__}")
    _measure(method, args)
    try:
        endpoint.bind(method, args)
    except TypeError as exc:
        raise InvalidInputError(f"{method}: {one_line(exc)}") from exc
    for name, value in args.items():
        hint = endpoint.hints[method].get(name, Any)
        if not fits(value, hint):
            raise InvalidInputError(f"{method}: {name} must be {_word(hint)}, not {_shown(name, value)}")
        if name.endswith("_id") and isinstance(value, int) and not 0 < value <= MAX_ID:
            raise InvalidInputError(f"{method}: {name} must be from 1 to {MAX_ID}, not {value!r:.40}")
    return args


def fits(value: Any, hint: Any) -> bool:
    """True if a JSON value is of the annotated type; containers are checked one level deep."""
    if hint is Any:
        return True
    origin = typing.get_origin(hint)
    if origin in {typing.Union, types.UnionType}:
        return any(fits(value, option) for option in typing.get_args(hint))
    if hint is type(None):
        return value is None
    if hint in {int, float} and isinstance(value, bool):
        return False
    if hint is float:
        return isinstance(value, int | float)
    return isinstance(value, origin or hint)


def _word(hint: Any) -> str:
    return getattr(hint, "__name__", None) or str(hint).replace("typing.", "")


def _shown(name: str, value: Any) -> str:
    """What an argument is: an id as it came, of anything else only its type, since it may be a secret."""
    return f"{value!r:.60}" if name.endswith("_id") else type(value).__name__


def _measure(method: str, args: dict[str, Any]) -> None:
    """Refuse arguments that are too large or too deep, and text that no database column takes."""
    size, depth = 0, 0
    level: list[tuple[str, Any]] = [("", args)]  # level by level: what is nested without end must not recurse
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise InvalidInputError(f"{method}: arguments nested more than {MAX_DEPTH} deep")
        deeper: list[tuple[str, Any]] = []
        for name, value in level:
            size += 8 + (len(value) if isinstance(value, str) else 0)
            if size > MAX_ARGUMENTS_BYTES:
                raise InvalidInputError(f"{method}: arguments of more than {MAX_ARGUMENTS_BYTES} bytes")
            if isinstance(value, str) and not storable(value):
                raise InvalidInputError(f"{method}: {name or 'an argument name'} has a NUL or half a character in it")
            deeper += _parts(name, value)
        level = deeper


def _parts(name: str, value: Any) -> list[tuple[str, Any]]:
    """What is inside a value, each with the argument that it is a part of."""
    if isinstance(value, dict):
        return [(name, key) for key in value] + [(name or str(key), part) for key, part in value.items()]
    return [(name, part) for part in value] if isinstance(value, list) else []


def storable(text: str) -> bool:
    """True if every database takes this text: no NUL, no lone surrogate."""
    return (text.isascii() and "\0" not in text) or not re.search("[\0\ud800-\udfff]", text)
