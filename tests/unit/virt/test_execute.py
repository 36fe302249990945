"""Programs of the host are bounded in time and space."""

from __future__ import annotations

import time

import pytest

from virt.errors import ProcessError
from virt.execute import Limits, run


def test_a_program_returns_what_it_printed():
    assert run(["echo", "a b; c"]) == "a b; c\n"


def test_a_program_reads_what_it_is_given():
    text = "all of it\n" * 100_000
    assert run(["cat"], stdin=text) == text
    assert run(["sh", "-c", "sleep 0.7; cat"], stdin=text, guard=lambda: None) == text


def test_a_failure_has_command_code_and_last_words():
    with pytest.raises(ProcessError, match="sh exited with 3: sorry") as caught:
        run(["sh", "-c", "echo sorry >&2; exit 3"])
    assert (caught.value.cmd[0], caught.value.exit_code) == ("sh", 3)


def test_a_missing_program_is_a_failure():
    with pytest.raises(ProcessError, match="no-such-program"):
        run(["no-such-program"])


def test_a_program_that_hangs_is_killed_at_its_deadline():
    start = time.monotonic()
    with pytest.raises(ProcessError) as caught:
        run(["sleep", "60"], timeout_s=0.2)
    assert time.monotonic() - start < 5
    assert caught.value.exit_code is None


def test_a_program_gets_no_more_memory_than_allowed():
    with pytest.raises(ProcessError):
        run(["dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1"],
            limits=Limits(address_space=128 * 1024**2, cpu_s=5))  # fmt: skip


def test_a_program_gets_no_more_cpu_than_allowed():
    with pytest.raises(ProcessError):
        run(["sh", "-c", "while :; do :; done"], timeout_s=30, limits=Limits(address_space=1024**3, cpu_s=1))


def test_a_guard_lets_a_program_end_and_ends_one_that_should_not_go_on():
    calls = []
    assert run(["sh", "-c", "sleep 0.7; echo done"], guard=lambda: calls.append(1)) == "done\n"
    assert calls
    start = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        run(["sleep", "60"], guard=lambda: 1 / 0)
    assert time.monotonic() - start < 5


def test_a_guard_does_not_lengthen_the_deadline():
    with pytest.raises(ProcessError, match="deadline"):
        run(["sleep", "60"], timeout_s=0.7, guard=lambda: None)
