"""Orders: say what was accepted, follow it when asked, and report how it ended."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compute.cli import faults, output
from compute.cli.session import Session
from compute.cli.views import Text, View
from compute.errors import ComputeError

if TYPE_CHECKING:
    from compute.api import Accepted

Progress = Callable[[Mapping[str, Any]], None]


def one(session: Session, args: argparse.Namespace, verb: str, accepted: Accepted, **also: Any) -> View:
    """The view of one order, and `also` what else there is to tell of it."""
    fact = _followed(session, args, verb, [accepted])[0]
    lines = [_line(fact), *(f"{name}: {value}" for name, value in also.items())]
    return Text(lines=lines, document={**fact, **also}, exit_code=_exit_code([fact]))


def many(session: Session, args: argparse.Namespace, verb: str, accepted: Sequence[Accepted]) -> View:
    """The view of several orders of one request: all are followed, each is reported."""
    facts = _followed(session, args, verb, accepted)
    return Text(lines=[_line(fact) for fact in facts], document={"instances": facts}, exit_code=_exit_code(facts))


def _followed(
    session: Session, args: argparse.Namespace, verb: str, accepted: Sequence[Accepted]
) -> list[dict[str, Any]]:
    for order in accepted:
        if not order.rang:
            output.complain(f"warning: {_name(order)}: the order is written, but its host could not be told yet")
    facts = [_fact(verb, order) for order in accepted]
    if not args.wait:
        return facts
    ends_at = time.monotonic() + args.timeout
    for fact, order in zip(facts, accepted, strict=True):
        if order.action_id is not None:
            fact.update(_outcome(session, order, max(0.0, ends_at - time.monotonic())))
            if fact["error"]:
                output.complain(f"instance {order.instance_id}: {verb}: {fact['error']}")
    return facts


def _outcome(session: Session, order: Accepted, timeout_s: float) -> dict[str, Any]:
    """How an order ended: `state` and `error` (None when it was done)."""
    try:
        with _progress(_name(order)) as progress:
            done = session.api.wait(session.context, order, timeout_s, progress)
    except TimeoutError:
        return {"state": "running", "error": f"not done after {session.args.timeout:g} s; it goes on"}
    except ComputeError as exc:
        return {"state": "failed", "error": str(exc)}
    return {"state": done["state"], "error": None}


@contextlib.contextmanager
def _progress(name: str) -> Iterator[Progress | None]:
    """A line that moves, on standard error when that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.text import Text as Styled

    with Console(stderr=True).status(Styled(name)) as status:

        def show(action: Mapping[str, Any]) -> None:
            words = [name, *(str(action[key]) for key in ("action", "state", "progress") if action.get(key))]
            status.update(Styled(output.printable(" ".join(words))))

        yield show


def _fact(verb: str, order: Accepted) -> dict[str, Any]:
    state = "done" if order.action_id is None else "requested"
    identity = {"instance_id": order.instance_id, "action_id": order.action_id}
    return {**identity, "verb": verb, "rang": order.rang, "state": state, "error": None}


def _line(fact: Mapping[str, Any]) -> str:
    word = "accepted" if fact["state"] == "requested" else fact["state"]
    number = "" if fact["action_id"] is None else f" (action {fact['action_id']})"
    return f"instance {fact['instance_id']}: {fact['verb']} {word}{number}"


def _name(order: Accepted) -> str:
    return f"instance {order.instance_id}"


def _exit_code(facts: Sequence[Mapping[str, Any]]) -> int:
    return faults.FAILED if any(fact["error"] for fact in facts) else 0
