import datetime

import pytest

from compute.messaging.bus_wire import (
    MalformedMessageError,
    Reply,
    Request,
    decode_reply,
    decode_request,
    encode,
    queue_name,
)


def a_request(**changes):
    return Request(**{"ctxt": {"user_id": "u"}, "message": {"method": "m"}, "msg_id": "1", **changes})


def test_a_request_comes_back_as_it_went():
    request = a_request(reply_to="caller", monitor_timeout_s=5)
    assert decode_request(encode(request)) == request


def test_a_reply_comes_back_as_it_went():
    reply = Reply(msg_id="1", result={"é": [1, None]}, ending=False)
    assert encode(reply).isascii()
    assert decode_reply(encode(reply)) == reply


@pytest.mark.parametrize("value", [datetime.datetime.now(datetime.UTC), {1}, b"bytes", object()])
def test_an_object_is_refused_instead_of_converted(value):
    with pytest.raises(TypeError, match="not JSON serializable"):
        encode(a_request(message={"args": {"value": value}}))


@pytest.mark.parametrize(
    "body",
    ["", "no json", "[]", "null", '{"msg_id": "1"}', '{"surprise": 1}', pytest.param("[" * 100_000, id="deep")],
)
def test_a_malformed_request_is_told(body):
    with pytest.raises(MalformedMessageError, match="not a request"):
        decode_request(body)


def test_a_malformed_reply_is_told():
    with pytest.raises(MalformedMessageError, match="not a reply"):
        decode_reply("{}")


def test_queue_names_differ_whatever_their_parts_contain():
    names = [
        queue_name("nova", "compute"),
        queue_name("nova", "compute", "host"),
        queue_name("nova", "compute/host"),
        queue_name("nova/compute", "host"),
        queue_name("private:x", "compute"),
    ]
    assert names[:2] == ["nova/compute", "nova/compute/host"]
    assert len(set(names)) == len(names)
    assert not any(name.startswith("private:") for name in names)
