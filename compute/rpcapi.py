"""The compute RPC client: what a scheduler, an API or another host imports. Mirrors ComputeManager.

Version history:
    1.0  The verbs of Nova 2011.2 with its argument names, plus start_instance, stop_instance, get_power_state and
         rollback_live_migration; `action_id` names the work order that a cast rings for.
    1.1  audit_host(repair), and its findings of files.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from compute.context import RequestContext
from compute.errors import ComputeError, InvalidStateError, UnreachableError
from compute.orders import Bell
from db.errors import DatabaseError
from virt.errors import GuestNotFoundError, GuestStateError, VirtError

VERSION = "1.1"
SPOKEN = "1.0"  # by clients, so that daemons of the release before understand them
SINCE: Mapping[str, Mapping[str, str]] = {"audit_host": {"repair": "1.1"}}
"""Arguments that need a newer daemon than SPOKEN does."""
LOG = logging.getLogger(__name__)
BROKER_DOWN_S = 2.0  # so long no further cast waits in vain for a broker that just was away
MESSAGE_ARGS: Mapping[str, tuple[str, ...]] = {
    "run_instance": ("availability_zone",),
    "reboot_instance": ("reboot_type",),
    "snapshot_instance": ("image_id",),
    "inject_file": ("path", "encoding"),
    "attach_volume": ("volume_id", "mountpoint"),
    "detach_volume": ("volume_id",),
    "prep_resize": ("flavor_id",),
    "resize_instance": ("migration_id",),
    "finish_resize": ("migration_id",),
    "finish_revert_resize": ("migration_id",),
    "confirm_resize": ("migration_id",),
    "revert_resize": ("migration_id",),
    "live_migration": ("dest",),
}
"""What travels with a doorbell. Never a secret: those stay sealed in the journal."""
T = TypeVar("T")


class ComputeRPC:
    """Casts return True when the broker took the message, False when it could not: the work order stands either way.

    Calls raise the remote error by class, or UnreachableError when nobody answers in time.
    """

    def __init__(self, open_client: Callable[[str, str], Any], *, topic: str, scheduler_topic: str) -> None:
        self._open_client, self._topic, self._scheduler_topic = open_client, topic, scheduler_topic
        self._clients: dict[str, Any] = {}
        self._down_until = 0.0  # on the monotonic clock
        self._lock = threading.Lock()

    def ring(self, context: RequestContext, order: Bell) -> bool:
        """Tell whose turn it is that an order waits, with the arguments that may travel; the journal has them all."""
        args = {name: order.args[name] for name in MESSAGE_ARGS.get(order.step, ()) if name in order.args}
        message = {"instance_id": order.instance_id, "action_id": order.id, **args}
        if order.host is None:
            return self._cast(self._scheduler, context, order.step, topic=self._topic, **message)
        return self.cast(context, order.host, order.step, **message)

    def cast(self, context: RequestContext, host: str, verb: str, /, **args: Any) -> bool:
        """Send a message that nobody answers."""
        return self._cast(lambda: self._prepared(host, verb, *args), context, verb, **args)

    def _cast(self, client: Callable[[], Any], context: RequestContext, verb: str, /, **args: Any) -> bool:
        from compute.messaging.transport import PASSING, is_broker_down

        if time.monotonic() < self._down_until:
            return False
        try:
            client().cast(context, verb, **args)
        except (*PASSING, UnreachableError) as exc:
            LOG.warning("the bus does not take %s: %s", verb, _reason(exc))
            if is_broker_down(exc):
                self._down_until = time.monotonic() + BROKER_DOWN_S
            return False
        return True

    def _scheduler(self) -> Any:
        return self._client_of(self._scheduler_topic)

    def call(self, context: RequestContext, host: str, verb: str, /, **args: Any) -> Any:
        """Send a message and wait for the answer."""
        from compute.messaging.transport import PASSING, RemoteError

        try:
            return self._prepared(host, verb, *args).call(context, verb, **args)
        except PASSING as exc:
            raise UnreachableError(f"compute daemon on {host} does not answer {verb}: {_reason(exc)}") from exc
        except RemoteError as exc:
            raise ComputeError(f"{verb} on {host}: {exc.exc_type}: {exc.value}") from exc
        except Exception as exc:
            local = _local_error(exc)
            if local is None:
                raise
            raise local from None  # the remote traceback is the remote operator's

    def pre_live_migration(self, context: RequestContext, host: str, instance_id: int) -> str | None:
        """Call: have the destination ready."""
        address: str | None = self.call(context, host, "pre_live_migration", instance_id=instance_id)
        return address

    def rollback_live_migration(self, context: RequestContext, host: str, instance_id: int) -> None:
        """Cast: have a destination forget a guest that did not come."""
        self.cast(context, host, "rollback_live_migration", instance_id=instance_id)

    def get_power_state(self, context: RequestContext, host: str, instance_id: int) -> int | None:
        """Call: what that host's hypervisor says of the guest; None when it does not know it."""
        found: int | None = self.call(context, host, "get_power_state", instance_id=instance_id)
        return found

    def _prepared(self, host: str, verb: str, *args: str) -> Any:
        newer = [SINCE[verb][name] for name in args if name in SINCE.get(verb, {})]
        more = {"version": newer[0]} if newer else {}
        return self._client_of(self._topic).prepare(server=host, **more)

    def _client_of(self, topic: str) -> Any:
        with self._lock:
            if topic not in self._clients:
                self._clients[topic] = self._open_client(topic, SPOKEN)
            return self._clients[topic]


def _local_error(exc: Exception) -> ComputeError | None:
    """What a remote error means to a caller of compute, in compute's own classes; None when it is none of ours."""
    if not type(exc).__name__.endswith("_Remote"):
        return None
    base, message = type(exc).__bases__[0], _reason(exc)
    if issubclass(base, ComputeError):
        return base(message)
    if issubclass(base, DatabaseError):
        return ComputeError(message)
    if issubclass(base, GuestNotFoundError | GuestStateError):
        return InvalidStateError(message)
    return ComputeError(message) if issubclass(base, VirtError) else None


def _reason(exc: BaseException) -> str:
    """The message without the remote traceback that oslo.messaging appends to it."""
    return " ".join(str(exc).split("\nTraceback")[0].split())[:2000] or type(exc).__name__
