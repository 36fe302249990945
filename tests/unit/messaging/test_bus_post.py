import time

import pytest

from compute.messaging import bus_post
from compute.messaging.bus_post import PostOffice
from compute.messaging.bus_store import BusFileError, private_queue
from compute.messaging.bus_wake import MAX_LETTER_BYTES, Delivery


@pytest.fixture
def path(tmp_path):
    return tmp_path / "bus.sqlite"


@pytest.fixture
def post(path):
    post = PostOffice(path)
    yield post
    post.close()


@pytest.fixture
def reader(path):
    """A reader in, as far as the bus can tell, another process."""
    elsewhere = PostOffice(path)
    mailbox = elsewhere.open(["topic"])
    yield mailbox
    mailbox.close()
    elsewhere.close()


def leave_without_goodbye(mailbox):
    """What kill -9 does: the socket closes, file and rows stay."""
    mailbox._doorbell.close()


def test_a_message_wakes_its_reader(post, reader, monkeypatch):
    monkeypatch.setattr(bus_post, "FALLBACK_LOOK_S", 60)
    post.send("topic", "hello")
    started = time.monotonic()
    assert reader.wait(None) == []
    assert time.monotonic() - started < 30
    assert reader.take(9) == ["hello"]


def test_a_reader_looks_into_the_file_now_and_then_even_unwoken(reader):
    started = time.monotonic()
    assert reader.wait(60) == []
    assert time.monotonic() - started < 30


def test_a_fanout_wakes_its_readers(post, reader):
    post.publish("topic", "news", time.time() + 60)
    assert reader.wait(None) == []
    assert reader.take(9) == ["news"]


def test_a_short_reply_rides_in_the_wake_up(post, reader):
    post.reply(reader.name, "short")
    assert reader.wait(None) == ["short"]
    assert post.store.length(private_queue(reader.name)) == 0


def test_a_long_reply_goes_through_the_file(post, reader):
    long = "x" * (MAX_LETTER_BYTES + 1)
    post.reply(reader.name, long)
    assert reader.wait(None) == []
    assert reader.take(9) == [long]


def test_replies_to_a_slow_caller_all_arrive(post, reader):
    replies = [str(number) for number in range(3000)]
    for reply in replies:
        post.reply(reader.name, reply)
    assert sorted(reader.wait(None) + reader.take(5000)) == sorted(replies)


def test_letters_to_a_stuck_caller_do_not_silence_the_wake_ups_of_others(post, reader):
    stuck = post.open(())
    for _ in range(50):
        post.reply(stuck.name, "x" * MAX_LETTER_BYTES)
    assert post.wake.post(reader.name) is Delivery.DELIVERED
    stuck.close()


def test_a_reply_to_a_dead_caller_is_dropped(post, reader):
    leave_without_goodbye(reader)
    post.reply(reader.name, "short")
    post.reply(reader.name, "x" * (MAX_LETTER_BYTES + 1))
    assert post.store.length(private_queue(reader.name)) == 0


def test_a_dead_reader_is_forgotten_by_the_first_fanout(post, reader):
    leave_without_goodbye(reader)
    post.publish("topic", "news", time.time() + 60)
    assert post.store.endpoints() == set()
    assert post.wake.names() == set()


def test_a_message_to_a_dead_reader_waits_for_the_next_one(post, reader):
    leave_without_goodbye(reader)
    post.send("topic", "hello")
    successor = post.open(["topic"])
    assert successor.take(9) == ["hello"]
    successor.close()


def test_a_sweep_removes_the_dead_and_the_expired_and_spares_the_living(post, reader):
    dead = post.open(["topic"])
    post.publish("topic", "news", time.time() + 60)
    leave_without_goodbye(dead)
    post.store.put("topic", "late", expires_at=time.time() - 1)
    post.sweep()
    assert post.store.endpoints() == post.wake.names() == {reader.name}
    assert post.store.length("topic") == 0
    assert reader.take(9) == ["news"]


def test_a_closed_mailbox_leaves_shared_messages_and_nothing_else(post):
    mailbox = post.open(["topic"])
    post.publish("topic", "news", time.time() + 60)
    post.send("topic", "order")
    mailbox.close()
    assert post.store.endpoints() == post.wake.names() == set()
    assert post.store.length("topic") == 1


def test_a_socket_directory_that_cannot_be_used_is_a_bus_error(path):
    path.with_name("bus.sqlite-wake").write_text("in the way")
    with pytest.raises(BusFileError, match=r"bus\.sqlite-wake: (Not a directory|File exists)"):
        PostOffice(path)
