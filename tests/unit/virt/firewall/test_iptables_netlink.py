"""What is made of a kernel's answers to a batch of elements."""

from __future__ import annotations

import errno
import struct
from typing import Self

import pytest

from virt.errors import FirewallError
from virt.firewall.iptables_netlink import ElementSocket, is_elements

LINE = 'add element bridge micronova taps { "tap2163e000001" }\n'


class FakeSocket:
    """A kernel that answers a batch with these (message number, error) pairs."""

    def __init__(self, *answers: tuple[int, int]) -> None:
        self._answers, self.sent = (
            [struct.pack("=IHHIIi", 20, 2, 0, number, 0, -error) for number, error in answers],
            b"",
        )

    def __call__(self, *kind: int) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        pass

    def setsockopt(self, *option: int) -> None:
        raise PermissionError

    def bind(self, address: object) -> None:
        pass

    def sendto(self, data: bytes, address: object) -> None:
        self.sent += data

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def recv(self, size: int) -> bytes:
        if not self._answers:
            raise BlockingIOError
        return self._answers.pop(0)


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
