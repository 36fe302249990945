"""Run a program on the host: never through a shell, always with a deadline, with limits when its input is not ours."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from virt.errors import ProcessError

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


def run(cmd: Sequence[str], *, timeout_s: float = 60.0, limits: Limits | None = None) -> str:
    """Run `cmd` and return what it printed; it is dead on return, whatever happened.

    Raises ProcessError when it fails, is not installed or passes `timeout_s`.
    """
    words = [*(limits.prefix() if limits else []), *cmd]
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=timeout_s,
            check=False, env={"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )  # fmt: skip
    except subprocess.TimeoutExpired as exc:
        raise ProcessError(list(cmd), None, f"killed after {timeout_s:g} s") from exc
    except OSError as exc:
        raise ProcessError(list(cmd), 127, str(exc)) from exc
    if done.returncode:
        raise ProcessError(list(cmd), done.returncode, done.stderr)
    return done.stdout
