"""The bus, by URL: `sqlite:///FILE` is the embedded one, `rabbit://...` RabbitMQ.

RabbitMQ is used with durable (or quorum) queues, mandatory confirmed publishing and a finite retry. The message is
only a doorbell: what it is about is in the journal before it is sent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from oslo_config import cfg

from compute import concurrency

concurrency.choose(concurrency.THREADING)  # what nobody chose before is threads; oslo.messaging asks when imported

import oslo_messaging  # noqa: E402
from oslo_messaging._metrics.client import oslo_messaging_metrics  # noqa: E402
from oslo_messaging._tracing.client import oslo_messaging_tracing  # noqa: E402
from oslo_messaging.rpc.client import _client_opts  # noqa: E402
from oslo_messaging.rpc.server import RPCServer  # noqa: E402
from oslo_messaging.server import _pool_opts  # noqa: E402
from oslo_messaging.transport import _transport_opts  # noqa: E402

from compute.errors import ConfigError, UnreachableError  # noqa: E402
from compute.messaging.dispatch import Dispatcher  # noqa: E402
from compute.messaging.loopback import Loopback  # noqa: E402
from compute.messaging.serializer import ContextSerializer  # noqa: E402

LOG = logging.getLogger(__name__)
REMOTE_ERRORS = ["compute.errors", "virt.errors", "db.errors"]
RemoteError = oslo_messaging.RemoteError
PASSING = (
    oslo_messaging.MessageDeliveryFailure,
    oslo_messaging.MessageUndeliverable,
    oslo_messaging.MessagingTimeout,
    OSError,
)


def is_broker_down(exc: Exception) -> bool:
    """True when no message to anybody would get through now; one host's queue that is missing is not that."""
    return not isinstance(exc, oslo_messaging.MessageUndeliverable)


class Server(RPCServer):  # type: ignore[misc]
    """An RPC server on the standard library's thread pool.

    oslo.messaging's own pool wakes every idle worker once a second and so takes a second to stop; its eventlet one is
    deprecated, and under eventlet's patches this pool is green anyway.
    """

    def __init__(self, transport: Any, target: Any, dispatcher: Any) -> None:
        super().__init__(transport, target, dispatcher)
        self._executor_cls = ThreadPoolExecutor
        self.heard_at = 0.0  # on the monotonic clock

    def _on_incoming(self, incoming: Any) -> None:
        self.heard_at = time.monotonic()
        super()._on_incoming(incoming)

    def _create_listener(self) -> Any:
        try:
            return super()._create_listener()
        except oslo_messaging.MessagingException as exc:
            raise UnreachableError(f"cannot consume: {' '.join(str(exc).split())}") from exc

    def _process_incoming(self, incoming: Any) -> None:
        """Answer one message; what is not even an object is dropped with a line, not with an accident in the pool."""
        message = incoming[0].message
        if isinstance(message, dict):
            super()._process_incoming(incoming)
            return
        LOG.info("dropped a message that is no object but %s", type(message).__name__)
        incoming[0].acknowledge()


class Bus:
    """A transport with this deployment's settings, and the clients and servers made on it."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self.url: str = conf.transport_url
        self._timeout_s: int = conf.rpc_response_timeout
        self._retry: int = conf.rpc_send_retry
        self._own = _messaging_conf(conf)
        try:
            self._transport = oslo_messaging.get_rpc_transport(
                self._own, url=self.url, allowed_remote_exmods=REMOTE_ERRORS
            )
        except (oslo_messaging.InvalidTransportURL, oslo_messaging.DriverLoadFailure) as exc:
            raise UnreachableError(f"transport_url: {exc}") from exc
        if self.url.startswith("rabbit:"):
            from compute.messaging.rabbit import use_shared_exchanges

            use_shared_exchanges(self._transport)

    def client(self, topic: str, version: str) -> Any:
        """An RPC client for `topic`; its casts are confirmed by the broker or raise one of PASSING."""
        return oslo_messaging.get_rpc_client(
            self._transport,
            oslo_messaging.Target(topic=topic, version=version),
            timeout=self._timeout_s,
            retry=self._retry,
            serializer=ContextSerializer(),
            transport_options=oslo_messaging.TransportOptions(at_least_once=True),
        )

    def server(self, topic: str, host: str, manager: object, version: str) -> Server:
        """A server of `manager`'s exposed verbs for `topic` and `topic.host`; not started."""
        target = oslo_messaging.Target(topic=topic, server=host)
        return Server(self._transport, target, Dispatcher(manager, version))

    def loopback(self, server: Server, topic: str, host: str, version: str, deaf: Callable[[], None]) -> Loopback:
        """What notices that `server` no longer hears, with a verb that costs nothing."""
        client = self.client(topic, version).prepare(server=host)

        def ring() -> bool:
            try:
                client.cast({}, "get_console_topic")
            except oslo_messaging.MessageUndeliverable:
                return True  # there is a broker, and our queue is not on it
            except PASSING:
                return False
            return True

        return Loopback(ring, lambda: server.heard_at, deaf)

    def close(self) -> None:
        """Close every connection."""
        self._transport.cleanup()


def _messaging_conf(conf: cfg.ConfigOpts) -> cfg.ConfigOpts:
    """oslo.messaging's own options, set from ours, in a configuration of this bus alone."""
    own = cfg.ConfigOpts()
    own.register_opts([*_pool_opts, *_client_opts, *_transport_opts])
    own.register_opts(oslo_messaging_metrics, group="oslo_messaging_metrics")
    own.register_opts(oslo_messaging_tracing, group="oslo_messaging_tracing")
    own([], default_config_files=[], default_config_dirs=[])
    own.set_override("control_exchange", conf.control_exchange)
    own.set_override("executor_thread_pool_size", conf.rpc_thread_pool_size)
    own.set_override("rpc_response_timeout", conf.rpc_response_timeout)
    if not conf.transport_url.startswith("sqlite:"):
        _tell_rabbit(own, conf)
    return own


def _tell_rabbit(own: cfg.ConfigOpts, conf: cfg.ConfigOpts) -> None:
    from oslo_messaging.opts import list_opts  # it loads RabbitMQ's driver, which takes as long as all the rest

    for group, opts in list_opts():
        own.register_opts(opts, group=group)
    rabbit = {
        "amqp_durable_queues": conf.rabbit_durable_queues,
        "rabbit_quorum_queue": conf.rabbit_quorum_queue,
        "rabbit_transient_quorum_queue": False,
        "heartbeat_timeout_threshold": 30,
        "kombu_reconnect_delay": 0.5,
        "rabbit_retry_interval": 1,
    }
    for name, value in rabbit.items():
        own.set_override(name, value, group="oslo_messaging_rabbit")


def check_reachable(url: str, timeout_s: float) -> None:
    """Log in to one of the brokers of a rabbit:// URL and hang up; UnreachableError saying why none of them lets us.

    Raises ConfigError for a URL of something else than the two transports that there are.
    """
    parsed = oslo_messaging.TransportURL.parse(cfg.ConfigOpts(), url)
    if parsed.transport == "sqlite":
        return
    if parsed.transport not in {"rabbit", "kombu"}:
        raise ConfigError(f"transport_url: there is no {parsed.transport}:// here, but sqlite:// and rabbit://")
    failures = []
    for host in parsed.hosts:
        failure = _refusal(host, parsed.virtual_host, timeout_s)
        if failure is None:
            return
        failures.append(f"{host.hostname}:{host.port or 5672}: {failure}")
    raise UnreachableError(f"broker unreachable: {'; '.join(failures) or 'no host in transport_url'}")


def _refusal(host: Any, virtual_host: str | None, timeout_s: float) -> str | None:
    """Why a broker does not take us, wrong password and missing virtual host included; None when it does."""
    from kombu.connection import Connection

    connection: Any = Connection(  # type: ignore[no-untyped-call]
        transport="pyamqp",
        hostname=host.hostname,
        port=host.port or 5672,
        userid=host.username or "guest",
        password=host.password or "guest",
        virtual_host=virtual_host or "/",
        connect_timeout=timeout_s,
    )
    try:
        connection.connect()
    except (OSError, *connection.connection_errors, *connection.channel_errors) as exc:
        return " ".join(str(exc).split())
    finally:
        connection.release()
    return None
