"""A client as others have written it: oslo.messaging and nothing of ours. Run as a program.

    plain_client.py TRANSPORT_URL SERVER [CONFIGURATION] < requests > answers

A request is a line of JSON: {"method", "args", and maybe "kind" (call or cast), "topic", "version", "context",
"timeout"}; the answer to each is a line: {"result"}, or {"error": class name, "says": message}.
"""

import json
import sys

import oslo_messaging
from oslo_config import cfg

CONTEXT = {
    "user_id": "ann",
    "project_id": "blue",
    "is_admin": True,
    "read_deleted": False,
    "remote_address": None,
    "timestamp": "2011-04-15T00:00:00.000000",
}


def main() -> None:
    """Answer requests until standard input ends."""
    url, server, *files = sys.argv[1:]
    cfg.CONF([], project="plain", default_config_files=files)
    transport = oslo_messaging.get_rpc_transport(cfg.CONF, url=url)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(transport, server, json.loads(line))) + "\n")
        sys.stdout.flush()
    transport.cleanup()


def answer(transport, server, request):
    """Send one message and tell what came of it."""
    topic, version = request.get("topic", "compute"), request.get("version", "1.0")
    target = oslo_messaging.Target(exchange="nova", topic=topic, version=version)
    client = oslo_messaging.get_rpc_client(transport, target, timeout=request.get("timeout", 20))
    to = client.prepare(server=request.get("server", server))
    send = to.cast if request.get("kind") == "cast" else to.call
    try:
        return {"result": send({**CONTEXT, **request.get("context", {})}, request["method"], **request["args"])}
    except oslo_messaging.RemoteError as exc:
        return {"error": exc.exc_type, "says": exc.value}
    except oslo_messaging.MessagingException as exc:
        return {"error": type(exc).__name__, "says": str(exc)}


if __name__ == "__main__":
    main()
