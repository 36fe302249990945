"""A kernel's end of a netlink socket."""

from __future__ import annotations

import struct
from typing import Self


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
