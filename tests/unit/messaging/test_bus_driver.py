import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import oslo_messaging
import pytest
from oslo_config import cfg

from compute.messaging import bus, bus_post, bus_store

TARGET = oslo_messaging.Target(topic="compute", server="here")


class Endpoint:
    def echo(self, ctxt, value):
        return value

    def give_an_object(self, ctxt):
        return object()

    def give_too_much(self, ctxt):
        return "x" * bus_store.MAX_MESSAGE_BYTES

    def wait(self, ctxt):
        threading.Event().wait(2.5)
        return "done"

    def show_context(self, ctxt):
        return ctxt


def a_transport(path, **arguments):
    return oslo_messaging.get_rpc_transport(cfg.CONF, url=f"sqlite://{path}", **arguments)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "bus.sqlite"


@pytest.fixture
def transport(path):
    transport = a_transport(path)
    yield transport
    transport.cleanup()


@pytest.fixture
def client(path):
    transport = a_transport(path)
    yield oslo_messaging.get_rpc_client(transport, TARGET, timeout=10)
    transport.cleanup()


@pytest.fixture
def server(transport):
    server = oslo_messaging.get_rpc_server(transport, TARGET, [Endpoint()])
    server.start()
    yield server
    server.stop()
    server.wait()


@pytest.mark.parametrize("slashes", ["sqlite:///", "sqlite:////"])
def test_a_bus_url_is_always_an_absolute_path(tmp_path, slashes):
    url = slashes + str(tmp_path / "a b" / "bus.sqlite").lstrip("/")
    (tmp_path / "a b").mkdir()
    oslo_messaging.get_rpc_transport(cfg.CONF, url=url).cleanup()
    assert Path(tmp_path, "a b", "bus.sqlite").exists()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite://host/bus.sqlite"])
def test_a_url_without_a_file_is_refused(url):
    with pytest.raises(bus.BusUnavailableError, match="names no file"):
        oslo_messaging.get_rpc_transport(cfg.CONF, url=url)


def test_a_bus_in_a_missing_directory_is_refused_by_name(tmp_path):
    with pytest.raises(bus.BusUnavailableError, match=f"{tmp_path}/nowhere"):
        a_transport(tmp_path / "nowhere" / "bus.sqlite")


def test_a_call_returns_what_the_server_returned(server, client):
    assert client.call({}, "echo", value={"é": [1, None, True]}) == {"é": [1, None, True]}


def test_a_context_arrives_as_it_was_sent(server, client):
    assert client.call({"user_id": "u", "is_admin": True}, "show_context") == {"user_id": "u", "is_admin": True}


def test_a_caller_is_told_of_an_argument_json_cannot_carry(server, client):
    with pytest.raises(TypeError, match="set is not JSON serializable"):
        client.call({}, "echo", value={1, 2})


def test_a_caller_is_told_of_a_result_json_cannot_carry(server, client):
    with pytest.raises(TypeError, match="object is not JSON serializable"):
        client.call({}, "give_an_object")


def test_a_caller_is_told_of_a_result_too_large(server, client):
    with pytest.raises(oslo_messaging.RemoteError, match=r"MessageTooLargeError.*limit of 2097152 bytes"):
        client.call({}, "give_too_much")


def test_a_large_argument_and_result_travel_whole(server, client):
    assert client.call({}, "echo", value="x" * 1_000_000) == "x" * 1_000_000


def test_a_sender_is_told_of_a_message_too_large(client):
    with pytest.raises(oslo_messaging.MessageDeliveryFailure, match="limit of 2097152 bytes"):
        client.cast({}, "echo", value="x" * bus_store.MAX_MESSAGE_BYTES)


def test_a_sender_is_told_of_a_full_queue(client, monkeypatch):
    monkeypatch.setattr(client.transport._driver._post.store, "_max_queue_length", 1)
    client.cast({}, "echo", value=1)
    with pytest.raises(oslo_messaging.MessageDeliveryFailure, match=r"openstack/compute/here .* is full"):
        client.cast({}, "echo", value=1)


def test_a_caller_without_a_server_times_out(client):
    with pytest.raises(oslo_messaging.MessagingTimeout, match=r"openstack/compute/here .* within 0.1 s"):
        client.prepare(timeout=0.1).call({}, "echo", value=1)


def test_a_monitored_call_outlives_its_monitor_timeout_while_the_server_works(server, client):
    assert client.prepare(timeout=30, call_monitor_timeout=2).call({}, "wait") == "done"


def test_a_monitored_call_gives_up_on_a_silent_server(client):
    with pytest.raises(oslo_messaging.MessagingTimeout):
        client.prepare(timeout=30, call_monitor_timeout=0.1).call({}, "echo", value=1)


def test_a_sender_may_ask_for_at_least_once_and_retries(server, client):
    options = oslo_messaging.TransportOptions(at_least_once=True)
    assert client.prepare(retry=3, transport_options=options).call({}, "echo", value=1) == 1


def test_exchanges_are_separate(server, client, transport):
    elsewhere = oslo_messaging.Target(exchange="elsewhere", topic="compute", server="here")
    stranger = oslo_messaging.get_rpc_client(transport, elsewhere, timeout=0.1)
    with pytest.raises(oslo_messaging.MessagingTimeout):
        stranger.call({}, "echo", value=1)


def test_a_malformed_message_is_dropped_and_the_next_one_served(server, client, transport):
    transport._driver._post.send("openstack/compute/here", "no json")
    assert client.call({}, "echo", value=1) == 1


def test_a_batch_is_as_large_as_asked_for_or_as_there_is_time_for(transport, client):
    for number in range(5):
        client.cast({}, "echo", value=number)
    listener = transport._listen(TARGET, 3, 0.05)._poll_style_listener
    values = [[m.message["args"]["value"] for m in listener.poll(1, 3, 0.05)] for _ in range(2)]
    assert values == [[0, 1, 2], [3, 4]]
    assert listener.poll(timeout=0.01) == []
    listener.cleanup()


def test_a_batch_waits_for_its_last_message(transport, client):
    listener = transport._listen(TARGET, 2, 30)._poll_style_listener
    with ThreadPoolExecutor(1) as pool:
        batch = pool.submit(listener.poll, 30, 2, 30)
        client.cast({}, "echo", value=1)
        while transport._driver._post.store.length("openstack/compute/here"):
            time.sleep(0.005)
        client.cast({}, "echo", value=2)
        assert [message.message["args"]["value"] for message in batch.result()] == [1, 2]
    listener.cleanup()


def test_a_notification_waits_for_its_listener(path):
    heard = []

    class Listener:
        def info(self, ctxt, publisher_id, event_type, payload, metadata):
            heard.append((event_type, payload))
            arrived.set()

    arrived = threading.Event()
    transport = oslo_messaging.get_notification_transport(cfg.CONF, url=f"sqlite://{path}")
    notifier = oslo_messaging.Notifier(transport, "me", driver="messagingv2", topics=["notifications"])
    notifier.info({}, "instance.created", {"id": 1})
    target = oslo_messaging.Target(topic="notifications")
    listener = oslo_messaging.get_notification_listener(transport, [target], [Listener()])
    listener.start()
    assert arrived.wait(10)
    listener.stop()
    listener.wait()
    transport.cleanup()
    assert heard == [("instance.created", {"id": 1})]


def test_a_notification_pool_is_refused(transport):
    with pytest.raises(NotImplementedError, match="no notification pools, so not 'pool'"):
        transport._listen_for_notifications([(TARGET, "info")], "pool", 1, None)


def test_an_idle_listener_stops_at_once(transport, monkeypatch):
    monkeypatch.setattr(bus_post, "FALLBACK_LOOK_S", 60)
    listener = transport._listen(TARGET, 1, None)
    listener.start(lambda incoming: None)
    started = time.monotonic()
    listener.stop()
    listener.cleanup()
    assert time.monotonic() - started < 30


def test_a_stopping_listener_hands_out_what_it_has_taken(transport, client):
    for number in range(3):
        client.cast({}, "echo", value=number)
    listener = transport._listen(TARGET, 1, None)._poll_style_listener
    first = listener.poll()
    listener.stop()
    rest = [message for _ in range(2) for message in listener.poll()]
    assert [message.message["args"]["value"] for message in first + rest] == [0, 1, 2]
    assert listener.poll() == []
    listener.cleanup()


def test_a_server_and_a_client_leave_no_thread_and_no_socket(path):
    before = set(threading.enumerate())
    transport = a_transport(path)
    server = oslo_messaging.get_rpc_server(transport, TARGET, [Endpoint()])
    server.start()
    assert oslo_messaging.get_rpc_client(transport, TARGET, timeout=10).call({}, "echo", value=1) == 1
    server.stop()
    server.wait()
    transport.cleanup()
    assert set(threading.enumerate()) == before
    assert list(path.with_name("bus.sqlite-wake").iterdir()) == []


def test_a_server_stops_even_after_its_transport_was_closed(path):
    transport = a_transport(path)
    server = oslo_messaging.get_rpc_server(transport, TARGET, [Endpoint()])
    server.start()
    transport.cleanup()
    server.stop()
    server.wait()


def test_a_closed_bus_is_told_to_the_sender(path):
    transport = a_transport(path)
    transport.cleanup()
    with pytest.raises(oslo_messaging.MessageDeliveryFailure, match="closed"):
        oslo_messaging.get_rpc_client(transport, TARGET).cast({}, "echo", value=1)
    with pytest.raises(bus.BusUnavailableError):
        transport._listen(TARGET, 1, None)
    with pytest.raises(bus.BusUnavailableError):
        oslo_messaging.get_rpc_client(transport, TARGET).call({}, "echo", value=1)
