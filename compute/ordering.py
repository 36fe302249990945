"""Accepting an operation: take the instance, write its order, ring for it. What every action comes down to."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from compute import orders
from compute.context import RequestContext
from compute.db_errors import translated
from compute.errors import ComputeError
from compute.orders import Also, Bell
from compute.reads import Reads
from compute.rpcapi import ComputeRPC
from compute.sealing import Sealer
from compute.states import Task
from db import actions
from db.errors import DatabaseError, DatabaseUnreachableError
from db.instances import Instance
from db.session import Database, Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """An accepted operation. action_id None: it was done at once. rang False: the host was not told, it will look.

    password and image_id: what set_admin_password made up, and the record that snapshot fills.
    """

    instance_id: int
    action_id: int | None
    rang: bool = True
    password: str | None = field(default=None, repr=False)
    image_id: int | None = None


class Ordering:
    """Places orders of one deployment."""

    def __init__(self, db: Database, reads: Reads, sealer: Sealer, rpc: ComputeRPC) -> None:
        self.db, self.reads, self.sealer, self.rpc = db, reads, sealer, rpc

    def place(
        self,
        context: RequestContext,
        key: str | int | Instance,
        task: Task,
        *,
        args: Mapping[str, Any] | None = None,
        host: str | None = None,
        also: Also | None = None,
    ) -> Accepted:
        """Take the instance for `task`, with what `also` takes, and ring its host, or `host`; see orders.accept.

        key: as a caller gives it, or what it was found to mean.
        """
        row = key if isinstance(key, Instance) else self.reads.resolve(context, key)
        op_id = str(uuid.uuid4())

        def write(tx: Tx) -> Bell:
            return orders.accept(tx, self.sealer, context, row.id, task, op_id=op_id, host=host, args=args, also=also)

        with translated():
            return self.ring(context, self._once(write, op_id))

    def _once(self, write: Callable[[Tx], Bell], op_id: str) -> Bell:
        try:
            return self.db.run(write)
        except DatabaseUnreachableError:
            raise
        except (ComputeError, DatabaseError):
            order = self.db.query(actions.find_message, op_id)
            if order is None:
                raise
            return orders.bell(self.sealer, order)  # the commit had gone through, only its answer was lost

    def ring(self, context: RequestContext, order: Bell) -> Accepted:
        """Tell whose turn it is."""
        rang = self.rpc.ring(context, order)
        return Accepted(
            instance_id=order.instance_id, action_id=order.id, rang=rang, image_id=order.args.get("image_id")
        )
