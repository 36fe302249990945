"""Tell hosts that security groups changed: those, and only those, whose packet filters the change concerns."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol

from compute.context import RequestContext
from compute.db_errors import translated
from db import security_groups
from db.session import Database


class Casts(Protocol):
    """What is needed of compute.rpcapi."""

    def cast(self, context: RequestContext, host: str, verb: str, /, **args: int) -> bool:
        """Send a message; False when the bus did not take it."""


class Refreshing:
    """Rings hosts after a change is committed. untold: hosts that the bus could not be made to tell."""

    def __init__(self, db: Database, rpc: Casts) -> None:
        self._db, self._rpc = db, rpc
        self.untold: set[str] = set()

    def rules_changed(self, context: RequestContext, group_id: int, *, left: str | None = None) -> None:
        """A group's rules, or who has them, changed; `left`: the host of an instance that is no member any more."""
        with translated():
            hosts = set(self._db.query(security_groups.hosts_of_group, group_id))
        self._tell(context, hosts | ({left} if left else set()), "refresh_security_group_rules", [group_id])

    def members_changed(self, context: RequestContext, group_ids: Collection[int]) -> None:
        """Instances joined or left these groups: hosts with rules that follow their members hear of it."""
        with translated():
            hosts = self._db.query(security_groups.hosts_of_grantees, group_ids)
        self._tell(context, hosts, "refresh_security_group_members", group_ids)

    def _tell(self, context: RequestContext, hosts: Iterable[str], verb: str, group_ids: Collection[int]) -> None:
        for host in sorted(hosts):
            for group_id in group_ids:
                if not self._rpc.cast(context, host, verb, security_group_id=group_id):
                    self.untold.add(host)
