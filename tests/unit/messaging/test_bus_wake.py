import stat
import time

import pytest

from compute.messaging.bus_wake import MAX_LETTER_BYTES, RING, Delivery, WakeDirectory, WakeError


@pytest.fixture
def wake(tmp_path):
    wake = WakeDirectory(tmp_path / "bus-wake")
    yield wake
    wake.close()


@pytest.fixture
def bell(wake):
    bell = wake.open("reader")
    yield bell
    bell.close()


def test_a_reader_gets_every_letter_that_has_come(wake, bell):
    assert wake.post("reader", b"one") is Delivery.DELIVERED
    assert wake.post("reader") is Delivery.DELIVERED
    assert bell.wait(5) == [b"one", RING]


def test_a_reader_of_nothing_wakes_when_its_time_is_up(bell):
    started = time.monotonic()
    assert bell.wait(0.05) == []
    assert 0.04 < time.monotonic() - started < 4


def test_a_writer_never_waits_for_a_full_reader(wake, bell):
    deliveries = {wake.post("reader", b"x" * MAX_LETTER_BYTES) for _ in range(5000)}
    assert deliveries == {Delivery.DELIVERED, Delivery.FULL}
    assert wake.is_alive("reader")


def test_a_writer_learns_that_a_reader_has_ended(wake, bell):
    assert wake.is_alive("reader")
    bell.close()
    assert not wake.is_alive("reader")
    assert wake.post("reader") is Delivery.GONE
    assert wake.names() == {"reader"}
    wake.remove("reader")
    assert wake.post("reader") is Delivery.GONE


def test_removing_a_removed_reader_succeeds(wake):
    wake.remove("nobody")
    assert wake.names() == set()


def test_the_sockets_are_private_to_their_user(wake, bell):
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (wake.path, wake.path / "reader")]
    assert modes == [0o700, 0o600]


def test_a_directory_open_to_others_is_refused(tmp_path):
    lax = tmp_path / "lax"
    lax.mkdir()
    lax.chmod(0o755)
    with pytest.raises(WakeError, match="lax is open to other users"):
        WakeDirectory(lax)


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    with pytest.raises(WakeError, match=r"socket directory .*nowhere/wake: No such file"):
        WakeDirectory(tmp_path / "nowhere" / "wake")


def test_a_directory_may_lie_deeper_than_a_socket_address_is_long(tmp_path):
    deep = tmp_path.joinpath(*["d" * 60] * 5)
    deep.mkdir(parents=True)
    wake = WakeDirectory(deep / "wake")
    bell = wake.open("reader")
    assert wake.post("reader", b"hello") is Delivery.DELIVERED
    assert bell.wait(5) == [b"hello"]
    bell.close()
    wake.close()


def test_a_closed_directory_reaches_nobody(tmp_path, bell):
    other = WakeDirectory(tmp_path / "bus-wake")
    other.close()
    assert other.post("reader") is not Delivery.DELIVERED
