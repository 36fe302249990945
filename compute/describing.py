"""The API's actions on what is said about an instance: its metadata and its lock."""

from __future__ import annotations

from collections.abc import Mapping

from compute import valid
from compute.context import RequestContext
from compute.create import Limits
from compute.db_errors import translated
from compute.errors import InstanceLockedError, NotFoundError, QuotaError
from compute.ordering import Accepted
from compute.reads import Reads
from db import instance_metadata, instances
from db.session import Database, Tx


class Describing:
    """Part of API; see there for what every method promises."""

    db: Database
    reads: Reads
    limits: Limits

    def lock(self, context: RequestContext, key: str | int) -> Accepted:
        """Refuse everybody but administrators from now on."""
        return self._set_locked(context, key, locked=True)

    def unlock(self, context: RequestContext, key: str | int) -> Accepted:
        """Let its project act on it again."""
        return self._set_locked(context, key, locked=False)

    def get_lock(self, context: RequestContext, key: str | int) -> bool:
        """True if only administrators may act on it."""
        return self.reads.resolve(context, key).locked

    def _set_locked(self, context: RequestContext, key: str | int, *, locked: bool) -> Accepted:
        row = self.reads.resolve(context, key)
        if row.locked and not context.is_admin:
            raise InstanceLockedError(f"instance {row.id} is locked: only an administrator may unlock it")
        with translated():
            self.db.run(instances.update, row.id, locked=locked)
        return Accepted(instance_id=row.id, action_id=None)

    def get_instance_metadata(self, context: RequestContext, key: str | int) -> dict[str, str]:
        """The instance's own keys and values."""
        row = self.reads.resolve(context, key)
        with translated():
            return self.db.query(instance_metadata.get, row.id)

    def update_or_create_instance_metadata(
        self, context: RequestContext, key: str | int, metadata: Mapping[str, str]
    ) -> dict[str, str]:
        """Set these keys, leave the others, and return them all; QuotaError when there would be too many."""
        row = self.reads.resolve(context, key)
        wanted = valid.properties("metadata", metadata)

        def write(tx: Tx) -> dict[str, str]:
            merged = {**instance_metadata.get(tx, row.id), **wanted}
            limit = self.limits.quota_metadata_items
            if 0 <= limit < len(merged):
                raise QuotaError(f"quota exceeded: {len(merged)} metadata items, {limit} are allowed")
            instance_metadata.update(tx, row.id, wanted)
            return merged

        with translated():
            return self.db.run(write)

    def delete_instance_metadata(self, context: RequestContext, key: str | int, name: str) -> None:
        """Forget one key; NotFoundError when the instance does not have it."""
        row = self.reads.resolve(context, key)
        with translated():
            if not self.db.run(instance_metadata.delete, row.id, name):
                raise NotFoundError(f"instance {row.id} has no metadata {name!r:.60}")
