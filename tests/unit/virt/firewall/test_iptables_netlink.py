"""What is made of a kernel's answers to a batch of elements."""

from __future__ import annotations

import errno

import pytest

from tests.fakes.netlink import FakeSocket
from virt.errors import FirewallError
from virt.firewall.iptables_netlink import ElementSocket, is_elements

LINE = 'add element bridge micronova taps { "tap2163e000001" }\n'


def test_a_change_that_the_kernel_made_is_made():
    kernel = FakeSocket((1, 0))
    ElementSocket(kernel).feed(LINE)
    assert b"tap2163e000001\0\0" in kernel.sent


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([(1, errno.EEXIST)], "set taps: File exists"),
        ([(0, errno.ENOMEM), (1, 0)], "the change: Cannot allocate memory"),
        ([], "the kernel has not said what became of a change"),
    ],
)
def test_what_the_kernel_refuses_or_does_not_answer_is_an_error(answers, words):
    with pytest.raises(FirewallError, match=f"nftables: table bridge micronova: {words}"):
        ElementSocket(FakeSocket(*answers)).feed(LINE)


def test_only_elements_need_no_nft():
    assert is_elements(LINE)
    assert not is_elements("add table bridge micronova\n")
