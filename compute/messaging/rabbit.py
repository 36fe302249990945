"""RabbitMQ as clients of every configuration can share it: durable queues on an exchange that is not durable.

oslo.messaging makes both durable or neither, and the broker refuses whoever declares an exchange otherwise than the
first one did. A client with the defaults declares it non-durable, and one with durable queues falls back to that; so
this is the one form that everybody can use. After a restart of the broker the consumers declare the exchange anew,
while the messages have waited in the durable queues.
"""

from __future__ import annotations

from typing import Any

from kombu.exceptions import OperationalError
from oslo_messaging import MessageDeliveryFailure
from oslo_messaging._drivers.impl_rabbit import Connection


class SharingConnection(Connection):  # type: ignore[misc]
    """oslo.messaging's connection, on non-durable topic exchanges."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().__init__(*args, **kwargs)
        except OperationalError as exc:  # oslo.messaging translates it for connections that it has, not for new ones
            raise MessageDeliveryFailure(f"no connection to the broker: {exc}") from exc

    def declare_consumer(self, consumer: Any) -> Any:
        """Begin to consume; queue and exchange are declared first."""
        _share(consumer.exchange)
        return super().declare_consumer(consumer)

    def _ensure_publishing(self, method: Any, exchange: Any, *args: Any, **kwargs: Any) -> None:
        _share(exchange)
        super()._ensure_publishing(method, exchange, *args, **kwargs)


def _share(exchange: Any) -> None:
    if exchange.type == "topic":
        exchange.durable = False


def use_shared_exchanges(transport: Any) -> None:
    """Have a rabbit transport make such connections; before it makes its first."""
    transport._driver._connection_pool.connection_cls = SharingConnection
