"""The compute RPC client: what a scheduler, an API or another host imports. Mirrors ComputeManager.

Version history:
    1.0  The verbs of Nova 2011.2 with its argument names, plus start_instance, stop_instance, get_power_state and
         rollback_live_migration; `action_id` names the work order that a cast rings for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from compute.context import RequestContext
from compute.errors import ComputeError, UnreachableError

VERSION = "1.0"
T = TypeVar("T")


class ComputeRPC:
    """Casts return True when the broker took the message, False when it could not: the work order stands either way.

    Calls raise the remote error by class, or UnreachableError when nobody answers in time.
    """

    def __init__(self, open_client: Callable[[str, str], Any], *, topic: str) -> None:
        self._open_client, self._topic = open_client, topic
        self._client: Any = None
        self._lock = threading.Lock()

    def ring(self, context: RequestContext, host: str, verb: str, instance_id: int, action_id: int) -> bool:
        """Tell `host` that an order waits for it."""
        return self.cast(context, host, verb, instance_id=instance_id, action_id=action_id)

    def cast(self, context: RequestContext, host: str, verb: str, **args: Any) -> bool:
        """Send a message that nobody answers."""
        from compute.messaging.transport import PASSING

        try:
            self._prepared(host).cast(context, verb, **args)
        except PASSING:
            return False
        return True

    def call(self, context: RequestContext, host: str, verb: str, **args: Any) -> Any:
        """Send a message and wait for the answer."""
        import oslo_messaging

        from compute.messaging.transport import PASSING

        try:
            return self._prepared(host).call(context, verb, **args)
        except PASSING as exc:
            raise UnreachableError(f"compute daemon on {host} does not answer {verb}: {_reason(exc)}") from exc
        except oslo_messaging.RemoteError as exc:
            raise ComputeError(f"{verb} on {host}: {exc.exc_type}: {exc.value}") from exc

    def pre_live_migration(self, context: RequestContext, host: str, instance_id: int) -> None:
        """Call: have the destination ready."""
        self.call(context, host, "pre_live_migration", instance_id=instance_id)

    def rollback_live_migration(self, context: RequestContext, host: str, instance_id: int) -> None:
        """Cast: have a destination forget a guest that did not come."""
        self.cast(context, host, "rollback_live_migration", instance_id=instance_id)

    def get_power_state(self, context: RequestContext, host: str, instance_id: int) -> int | None:
        """Call: what that host's hypervisor says of the guest; None when it does not know it."""
        found: int | None = self.call(context, host, "get_power_state", instance_id=instance_id)
        return found

    def _prepared(self, host: str) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._open_client(self._topic, VERSION)
        return self._client.prepare(server=host)


def _reason(exc: BaseException) -> str:
    return " ".join(str(exc).split())[:200] or type(exc).__name__
