"""What a command may need, each made when first asked for: configuration, database, reads, API, and who asks."""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from compute.context import RequestContext, get_admin_context
from compute.errors import ComputeError

if TYPE_CHECKING:
    from compute.api import API
    from compute.reads import Reads
    from compute.refreshing import Refreshing
    from db.session import Database


_RETRIES = 2  # an operator is told within seconds that the server is away; a daemon has more patience


class Session:
    """One run of nova-manage. Nothing is imported, read or opened before it is used."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        made = vars(self)
        if "api" in made:
            self.api.close()
        if "any_db" in made:
            self.any_db.dispose()

    @cached_property
    def conf(self) -> Any:
        """The configuration (an oslo.config ConfigOpts)."""
        from compute.conf import load

        return load(self.args.config_file)

    @cached_property
    def any_db(self) -> Database:
        """The database at whatever revision, even none."""
        # compute.service opens it the same way, but is a tenth of a second of imports
        from db.session import Database

        return Database(
            self.conf.sql_connection,
            sqlite_synchronous=self.conf.sqlite_synchronous,
            max_retries=_RETRIES,
            retry_interval_s=self.conf.sql_retry_interval,
            idle_timeout_s=self.conf.sql_idle_timeout,
            pool_size=self.conf.sql_pool_size,
        )

    @cached_property
    def db(self) -> Database:
        """The database at this program's revision; otherwise ComputeError says which command mends it."""
        from db import migration

        path = self.any_db.url.database
        if self.any_db.dialect == "sqlite" and path and not Path(path).exists():
            raise ComputeError(f"there is no database {path}: run `nova-manage db sync`")
        migration.check(self.any_db)
        return self.any_db

    @cached_property
    def reads(self) -> Reads:
        """Look-ups of instances and actions."""
        from compute.reads import Reads

        return Reads(self.db, instance_name_template=self.conf.instance_name_template)

    @cached_property
    def api(self) -> API:
        """What gives orders; the bus is reached when the first order rings."""
        from compute import concurrency
        from compute.service import build_api

        concurrency.choose(concurrency.THREADING)
        self.db  # noqa: B018 - an order needs a database of our revision, and this says so best
        api: API = build_api(self.conf)
        return api

    @cached_property
    def refresh(self) -> Refreshing:
        """What tells hosts of changed security groups."""
        from compute.refreshing import Refreshing

        return Refreshing(self.db, self.api.rpc)

    @cached_property
    def context(self) -> RequestContext:
        """Who asks: an administrator, or with --project that project, with its rights only unless --admin."""
        project_id, user_id = self.args.project, self.args.user
        admin = get_admin_context(read_deleted=getattr(self.args, "deleted", False))
        if project_id is None:
            return replace(admin, user_id=user_id or admin.user_id)
        return replace(admin, user_id=user_id or project_id, project_id=project_id, is_admin=self.args.admin)

    @property
    def images_path(self) -> Path:
        """Where the registry keeps copies of local images."""
        return Path(self.conf.images_path)
