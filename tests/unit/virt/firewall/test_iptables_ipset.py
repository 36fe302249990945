"""What is made of a kernel's answers to lines of ipset."""

from __future__ import annotations

import errno

import pytest

from tests.fakes.netlink import FakeSocket
from virt.errors import FirewallError
from virt.firewall.iptables_ipset import SetSocket

ADDED = "add nova-r4-7 10.0.0.0/8,tcp:80 -exist\nadd nova-r4-7 10.0.0.9,udp:53 -exist\n"


def test_elements_of_one_set_are_one_message_and_what_the_kernel_did_is_done():
    kernel = FakeSocket((0, 0))
    SetSocket(kernel).feed(ADDED)
    assert kernel.sent.count(b"nova-r4-7\0") == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([(0, errno.ENOENT)], "No such file or directory"),
        ([(0, 4352)], "Hash is full"),
        ([(0, 4999)], "Unknown error 4999"),
        ([], "the kernel has not said what became of a change"),
    ],
)
def test_what_the_kernel_refuses_or_does_not_answer_is_an_error(answer, words):
    with pytest.raises(FirewallError, match=f"ipset: set nova-r4-7: {words}"):
        SetSocket(FakeSocket(*answer)).feed(ADDED)


def test_nothing_is_asked_for_after_what_was_refused():
    kernel = FakeSocket((0, 4352))
    with pytest.raises(FirewallError, match="nova-r4-7"):
        SetSocket(kernel).feed(f"{ADDED}destroy nova-r4-8\n")
    assert b"nova-r4-8" not in kernel.sent
