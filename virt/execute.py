"""Run a program on the host: never through a shell, always with a deadline, with limits when its input is not ours."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from virt.errors import ProcessError

_GUARD_S = 0.5

Execute = Callable[..., str]
"""What `run` looks like to those who are handed one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a program may use: address space in bytes, CPU time in seconds."""

    address_space: int
    cpu_s: int

    def prefix(self) -> list[str]:
        """The words to put before a command line. A wrapper, because preexec_fn is not safe beside threads."""
        return ["prlimit", f"--as={self.address_space}", f"--cpu={self.cpu_s}", "--"]


def run(
    cmd: Sequence[str],
    *,
    timeout_s: float = 60.0,
    limits: Limits | None = None,
    guard: Callable[[], None] | None = None,
    stdin: str | None = None,
    umask: int = -1,
) -> str:
    """Run `cmd` and return what it printed; it is dead on return, whatever happened.

    `stdin` is what it finds there; None: nothing. `guard` is called every half second and may end it by raising.
    `umask` is what the files that it makes may not be; -1: as this process's.
    Raises ProcessError when it fails, is not installed or passes `timeout_s`.
    """
    words = [*(limits.prefix() if limits else []), *cmd]
    try:
        with _readable(stdin) as source:
            program = subprocess.Popen(
                words, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
                env={"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, umask=umask,
            )  # fmt: skip
    except OSError as exc:
        raise ProcessError(list(cmd), 127, str(exc)) from exc
    with program:
        try:
            stdout, stderr = _wait(program, timeout_s, guard)
        except subprocess.TimeoutExpired as exc:
            raise ProcessError(list(cmd), None, f"killed after {timeout_s:g} s") from exc
        finally:
            program.kill()
    if program.returncode:
        raise ProcessError(list(cmd), program.returncode, stderr)
    return stdout


@contextmanager
def _readable(text: str | None) -> Iterator[int]:
    """A file with this text: unlike a pipe it never fills up, whatever the program does with it."""
    if text is None:
        yield subprocess.DEVNULL
        return
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        file.write(text)
        file.seek(0)
        yield file.fileno()


def _wait(program: subprocess.Popen[str], timeout_s: float, guard: Callable[[], None] | None) -> tuple[str, str]:
    """What the program printed, once it has ended. Raises TimeoutExpired, and whatever `guard` raises."""
    deadline = time.monotonic() + timeout_s
    while True:
        left = max(0.0, deadline - time.monotonic())
        try:
            return program.communicate(timeout=left if guard is None else min(left, _GUARD_S))
        except subprocess.TimeoutExpired:
            if guard is None or left <= _GUARD_S:
                raise
            guard()
