import sqlite3
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest

from compute.messaging import bus_store
from compute.messaging.bus_store import (
    BusFileError,
    BusStore,
    BusStoreError,
    MessageTooLargeError,
    QueueFullError,
    private_queue,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "bus.sqlite"


@pytest.fixture
def store(path):
    store = BusStore(path)
    yield store
    store.close()


def a_file_of_another_kind(path, *statements):
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def test_a_taker_gets_messages_in_order_and_only_once(store):
    for body in "abc":
        store.put("q", body)
    assert store.take(["q"], 2) == ["a", "b"]
    assert store.take(["q"], 2) == ["c"]
    assert store.take(["q"], 2) == []


def test_a_taker_reads_all_its_queues_up_to_its_limit(store):
    for queue in ("second", "first", "strange"):
        store.put(queue, queue)
    assert store.take(["first", "second"], 1) == ["first"]
    assert store.take(["first", "second"], 9) == ["second"]
    assert store.length("strange") == 1


def test_a_message_waits_for_a_reader_that_opens_the_file_later(path, store):
    store.put("q", "hello")
    store.close()
    later = BusStore(path)
    assert later.take(["q"], 1) == ["hello"]
    later.close()


def test_one_message_has_one_winner_of_32_racing_takers(path, store):
    takers = [BusStore(path) for _ in range(32)]
    start = threading.Barrier(len(takers))

    def race(taker):
        start.wait()
        return taker.take(["q"], 8)

    for round_number in range(5):
        store.put("q", str(round_number))
        with ThreadPoolExecutor(len(takers)) as pool:
            assert list(chain.from_iterable(pool.map(race, takers))) == [str(round_number)]
    for taker in takers:
        taker.close()


def test_racing_senders_and_takers_lose_and_double_nothing(path, store):
    def send(sender):
        for number in range(100):
            store.put("q", f"{sender}-{number}")

    def drain(_):
        taken, other = [], BusStore(path)
        while len(taken) < 100:
            taken += other.take(["q"], 1)
        other.close()
        return taken

    with ThreadPoolExecutor(8) as pool:
        drained = pool.map(drain, range(4))
        list(pool.map(send, range(4)))
        assert sorted(chain.from_iterable(drained)) == sorted(
            f"{sender}-{n}" for sender in range(4) for n in range(100)
        )


def test_a_sender_learns_whom_to_wake(store):
    store.bind("reader", ["topic", "topic/here"])
    store.bind("other", ["topic"])
    assert sorted(store.put("topic", "x")) == ["other", "reader"]
    assert store.put("topic/here", "x") == ["reader"]


def test_a_fanout_reaches_every_bound_endpoint_and_nobody_else(store):
    store.bind("one", ["topic"])
    store.bind("two", ["topic"])
    store.bind("stranger", ["other"])
    assert sorted(store.publish("topic", "news")) == ["one", "two"]
    assert [store.take([private_queue(name)], 9) for name in ("one", "two", "stranger")] == [["news"], ["news"], []]


def test_a_forgotten_endpoint_leaves_nothing_behind(store):
    store.bind("reader", ["topic"])
    store.publish("topic", "news")
    assert store.endpoints() == {"reader"}
    store.forget("reader")
    assert store.endpoints() == set()
    assert store.publish("topic", "news") == []


def test_an_endpoint_is_known_by_a_private_message_alone(store):
    store.put(private_queue("caller"), "reply")
    assert store.endpoints() == {"caller"}


def test_an_expired_message_is_dropped_by_its_taker(store):
    store.put("q", "late", expires_at=time.time() - 1)
    store.put("q", "in time", expires_at=time.time() + 60)
    assert store.take(["q"], 9) == ["in time"]
    assert store.length("q") == 0


def test_a_purge_removes_only_what_has_expired(store):
    store.put("q", "late", expires_at=time.time() - 1)
    store.put("q", "in time", expires_at=time.time() + 60)
    store.put("q", "for ever")
    assert store.purge_expired() == 1
    assert store.take(["q"], 9) == ["in time", "for ever"]


def test_a_message_over_the_limit_is_refused_by_size(store):
    store.put("q", "x" * bus_store.MAX_MESSAGE_BYTES)
    with pytest.raises(MessageTooLargeError, match="2097153 bytes is over the bus's limit of 2097152"):
        store.put("q", "x" * (bus_store.MAX_MESSAGE_BYTES + 1))
    with pytest.raises(MessageTooLargeError, match="2097154 bytes"):
        store.publish("q", "é" * (bus_store.MAX_MESSAGE_BYTES // 2 + 1))


def test_a_full_queue_refuses_its_sender_and_no_other(path):
    store = BusStore(path, max_queue_length=2)
    store.put("q", "a")
    store.put("q", "b")
    with pytest.raises(QueueFullError, match=r"queue q of .*bus\.sqlite is full with 2 messages"):
        store.put("q", "c")
    store.put("other", "c")
    assert store.take(["q"], 1) == ["a"]
    store.put("q", "c")
    assert store.take(["q"], 9) == ["b", "c"]
    store.close()


def test_a_fanout_passes_over_a_reader_that_has_stopped_reading(path):
    store = BusStore(path, max_queue_length=1)
    store.bind("stuck", ["topic"])
    store.publish("topic", "one")
    store.bind("live", ["topic"])
    assert store.publish("topic", "two") == ["live"]
    store.close()


def test_a_full_disk_is_told_to_the_sender_and_harms_nothing(path, store):
    store.put("q", "before")
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(BusStoreError, match=rf"cannot write the bus {path}: database or disk is full"):
        store.put("q", "x" * 100_000)
    assert store.take(["q"], 9) == ["before"]


def test_a_bus_locked_for_too_long_is_told_to_the_sender(path, store, monkeypatch):
    monkeypatch.setattr(bus_store, "BUSY_TIMEOUT_S", 0.01)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(BusStoreError, match="locked"):
        store.put("q", "x")
    holder.close()
    store.put("q", "x")


def test_the_bus_file_is_private_to_its_user(path, store):
    store.put("q", "x")
    modes = {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {0o600}


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(BusFileError, match=rf"directory {tmp_path}/nowhere: No such file or directory"):
        BusStore(tmp_path / "nowhere" / "bus.sqlite")


def test_a_file_that_is_not_sqlite_is_named_and_kept(path):
    path.write_text("precious " * 200)
    with pytest.raises(BusFileError, match=r"bus\.sqlite cannot serve as a bus: file is not a database"):
        BusStore(path)
    assert path.read_text() == "precious " * 200


def test_an_sqlite_file_of_another_program_is_refused_untouched(path):
    a_file_of_another_kind(path, "CREATE TABLE instances (id)")
    before = path.read_bytes()
    with pytest.raises(BusFileError, match="not a message bus"):
        BusStore(path)
    assert path.read_bytes() == before


def test_a_bus_of_another_version_is_refused(path, store):
    a_file_of_another_kind(path, "PRAGMA user_version = 7")
    with pytest.raises(BusFileError, match="is a bus of version 7, this release speaks version 1"):
        BusStore(path)


def test_many_openers_of_a_new_bus_agree_on_one_schema(path):
    with ThreadPoolExecutor(16) as pool:
        stores = list(pool.map(BusStore, [path] * 16))
    stores[0].put("q", "x")
    assert stores[-1].take(["q"], 1) == ["x"]
    for store in stores:
        store.close()


def test_a_closed_store_says_so(store):
    store.close()
    with pytest.raises(BusStoreError, match="closed"):
        store.put("q", "x")
    with pytest.raises(BusStoreError, match="closed"):
        store.take(["q"], 1)
