"""Which verbs the bus may call, with which arguments, and how errors go back.

A verb is a method marked `@exposed` in the manager's own class: nothing underscored, nothing inherited. Arguments are
held against the method's annotations before it is entered, so that bad input is an answer and not an accident.
"""

from __future__ import annotations

import inspect
import logging
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from compute import concurrency

concurrency.choose(concurrency.THREADING)  # as transport does: whichever of the two is imported first

from oslo_messaging import Target  # noqa: E402
from oslo_messaging.rpc import dispatcher as oslo_dispatcher  # noqa: E402

from compute.errors import ClaimLostError, InvalidInputError  # noqa: E402
from compute.messaging.serializer import ContextSerializer  # noqa: E402

LOG = logging.getLogger(__name__)
MAX_ARGUMENTS_BYTES = 1024 * 1024
Verb = TypeVar("Verb", bound=Callable[..., Any])


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


class Endpoint:
    """What oslo.messaging sees: the version, and attributes for verbs only."""

    def __init__(self, manager: object, version: str) -> None:
        self.target = Target(version=version)
        self.hints: dict[str, dict[str, Any]] = {}
        self.signatures: dict[str, inspect.Signature] = {}
        for name, verb in verbs_of(manager).items():
            self.hints[name] = typing.get_type_hints(verb)
            self.signatures[name] = inspect.signature(verb)
            setattr(self, name, verb)


class _VerbsOnly(oslo_dispatcher.RPCAccessPolicyBase):  # type: ignore[misc]
    def is_allowed(self, endpoint: Endpoint, method: str) -> bool:
        return method in endpoint.hints


class Dispatcher(oslo_dispatcher.RPCDispatcher):  # type: ignore[misc]
    """Checks arguments, calls the verb, and keeps expected errors out of the log's tracebacks."""

    def __init__(self, manager: object, version: str) -> None:
        super().__init__([Endpoint(manager, version)], ContextSerializer(), _VerbsOnly)

    def dispatch(self, incoming: Any) -> Any:
        """Answer one message; every expected error goes back to a caller by class."""
        try:
            return super().dispatch(incoming)
        except ClaimLostError as exc:
            LOG.debug("%s", exc)
            raise oslo_dispatcher.ExpectedException from exc
        except Exception as exc:
            if not _is_expected(exc):
                raise
            LOG.info("%s refused: %s", str(incoming.message.get("method"))[:80], exc)
            raise oslo_dispatcher.ExpectedException from exc

    def _do_dispatch(self, endpoint: Endpoint, method: str, ctxt: Mapping[str, Any], args: Any) -> Any:
        context = self.serializer.deserialize_context(ctxt)
        return getattr(endpoint, method)(context, **checked(method, endpoint, args))


def _is_expected(exc: Exception) -> bool:
    return getattr(exc, "expected", False) or isinstance(
        exc, oslo_dispatcher.NoSuchMethod | oslo_dispatcher.UnsupportedVersion
    )


def checked(method: str, endpoint: Endpoint, args: Any) -> dict[str, Any]:
    """The arguments, if the verb takes exactly these; InvalidInputError naming the one that is wrong."""
    if not isinstance(args, dict):
        raise InvalidInputError(f"{method}: arguments must be an object, not {type(args).__name__}")
    if _weight(args) > MAX_ARGUMENTS_BYTES:
        raise InvalidInputError(f"{method}: arguments of more than {MAX_ARGUMENTS_BYTES} bytes")
    try:
        endpoint.signatures[method].bind(None, **args)
    except TypeError as exc:
        raise InvalidInputError(f"{method}: {exc}") from exc
    for name, value in args.items():
        hint = endpoint.hints[method].get(name, Any)
        if not fits(value, hint):
            raise InvalidInputError(f"{method}: {name} must be {_word(hint)}, not {value!r:.60}")
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


def _weight(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(_weight(key) + _weight(item) for key, item in value.items())
    if isinstance(value, list):
        return sum(map(_weight, value)) + len(value)
    return 8
