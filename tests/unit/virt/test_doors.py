"""Doors to consoles: one client, with the token, in time."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from virt.doors import Doors
from virt.errors import GuestStateError, HypervisorError
from virt.threads import NativeThreads


class Inside:
    """A console that answers in capitals."""

    def __init__(self):
        self.opened = 0

    def open(self):
        self.opened += 1
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._answer, args=(theirs,)).start()
        return ours.detach()

    def _answer(self, end):
        with end:
            while said := end.recv(100):
                end.sendall(said.upper())


@pytest.fixture
def inside():
    return Inside()


@pytest.fixture
def doors():
    made = Doors(NativeThreads(), ttl_s=5)
    yield made
    made.close()


def knock(access, said):
    connection = socket.create_connection((access.host, access.port), timeout=5)
    connection.sendall(said)
    return connection


def is_shut(connection):
    with connection:
        try:
            return connection.recv(100) == b""
        except ConnectionResetError:
            return True


def test_the_token_opens_the_console(doors, inside):
    access = doors.open("guest", inside.open)
    with knock(access, access.token.encode() + b"\nhello") as connection:
        assert connection.recv(100) == b"HELLO"


def test_a_wrong_token_opens_nothing(doors, inside):
    access = doors.open("guest", inside.open)
    assert is_shut(knock(access, b"guess\nhello"))
    assert inside.opened == 0


def test_the_token_of_another_guest_opens_nothing(doors, inside):
    mine, other = doors.open("guest", inside.open), doors.open("other guest", inside.open)
    assert is_shut(knock(other, mine.token.encode() + b"\nhello"))
    assert inside.opened == 0


def test_a_guess_does_not_keep_the_owner_out(doors, inside):
    access = doors.open("guest", inside.open)
    knock(access, b"guess\n").close()
    with knock(access, access.token.encode() + b"\nhello") as connection:
        assert connection.recv(100) == b"HELLO"


def test_a_few_guesses_close_the_door(doors, inside):
    access = doors.open("guest", inside.open)
    for _ in range(3):
        assert is_shut(knock(access, b"guess\n"))
    time.sleep(0.2)
    with pytest.raises(ConnectionRefusedError):
        knock(access, b"")


def test_a_door_opens_once(doors, inside):
    access = doors.open("guest", inside.open)
    with knock(access, access.token.encode() + b"\nx") as connection:
        connection.recv(1)
        with pytest.raises(ConnectionRefusedError):
            knock(access, b"")


def test_a_door_closes_when_its_time_is_over(inside):
    access = Doors(NativeThreads(), ttl_s=0.1).open("guest", inside.open)
    time.sleep(0.4)
    with pytest.raises(ConnectionRefusedError):
        knock(access, b"")


def test_a_guest_that_went_off_meanwhile_has_no_console(doors, caplog):
    def gone():
        raise GuestStateError("guest x: is off")

    access = doors.open("guest", gone)
    with knock(access, access.token.encode() + b"\n") as connection:
        assert connection.recv(1) == b""


def test_doors_are_bounded(inside):
    doors = Doors(NativeThreads(), limit=2)
    doors.open("a", inside.open)
    doors.open("b", inside.open)
    with pytest.raises(HypervisorError, match="2 consoles"):
        doors.open("c", inside.open)
    doors.close()


def test_closing_ends_what_is_open(doors, inside):
    access = doors.open("guest", inside.open)
    with knock(access, access.token.encode() + b"\nx") as connection:
        connection.recv(1)
        doors.close()
        assert connection.recv(1) == b""


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_file_descriptor_is_left(inside):
    doors = Doors(NativeThreads(), ttl_s=5)
    before = open_files()
    for _ in range(5):
        access = doors.open("guest", inside.open)
        with knock(access, access.token.encode() + b"\nx") as connection:
            connection.recv(1)
    deadline = time.monotonic() + 5
    while open_files() > before:
        assert time.monotonic() < deadline
        time.sleep(0.02)
