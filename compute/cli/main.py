"""nova-manage's entry: parse, run, show; every error becomes one line and an exit code here."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from compute.cli import faults, output, parser
from compute.cli.command import Verb
from compute.cli.session import Session


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return the exit code.

    0 done, 1 the operation failed, 2 usage, 3 not found, 4 conflict, 5 daemon, broker or database unreachable.
    """
    argv = sys.argv[1:] if argv is None else argv
    if "_ARGCOMPLETE" in os.environ:
        from compute.cli import completion

        completion.answer()
    try:
        return _run(argv)
    except BrokenPipeError:
        # Whoever read our output has seen enough; the interpreter must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return faults.FAILED
    except (Exception, KeyboardInterrupt) as exc:  # noqa: BLE001 - the edge of the program: told below, never dropped
        return _tell(exc, debug="--debug" in argv)


def _run(argv: Sequence[str]) -> int:
    parsed = parser.parse(argv)
    if isinstance(parsed, str):
        output.write_text(parsed)
        return 0
    verb, args = parsed
    return _perform(verb, Session(args))


def _perform(verb: Verb, session: Session) -> int:
    with session:
        view = verb.run(session, session.args)
        output.show(view, session.args.format)
    return view.exit_code


def _tell(exc: BaseException, *, debug: bool) -> int:
    fault = faults.explain(exc)
    if debug:
        output.trace("".join(traceback.format_exception(exc)))
    output.complain(fault.message)
    return fault.exit_code
