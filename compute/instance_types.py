"""Instance types (flavors): what may be one, and who may change them."""

from __future__ import annotations

from compute import valid
from compute.context import RequestContext
from compute.db_errors import translated
from compute.errors import InvalidInputError
from compute.policy import require_admin
from db import instance_types
from db.instance_types import InstanceType
from db.session import Database


def create(
    db: Database,
    context: RequestContext,
    *,
    name: str,
    memory_mb: int,
    vcpus: int,
    local_gb: int,
    flavorid: str,
    swap: int = 0,
    rxtx_quota: int = 0,
    rxtx_cap: int = 0,
    ephemeral_gb: int = 0,
) -> InstanceType:
    """Add a type. memory_mb and swap in MiB, local_gb in GiB (0: as large as the image).

    ephemeral_gb: how many of local_gb are a second, empty disk; at least one is left for the root disk.

    Raises InvalidInputError, or DuplicateError when the name or the flavorid is taken.
    """
    require_admin(context, "instance_type create")
    disk_gb = valid.whole("local_gb", local_gb, least=0)
    second_gb = valid.whole("ephemeral_gb", ephemeral_gb, least=0)
    if second_gb and second_gb >= disk_gb:
        raise InvalidInputError(f"ephemeral_gb {second_gb}: it is a part of local_gb, which is {disk_gb}")
    values = {
        "name": valid.name("instance type name", name),
        "flavorid": valid.name("flavorid", str(flavorid)),
        "memory_mb": valid.whole("memory_mb", memory_mb, least=1),
        "vcpus": valid.whole("vcpus", vcpus, least=1),
        "local_gb": disk_gb,
        "swap": valid.whole("swap", swap, least=0),
        "rxtx_quota": valid.whole("rxtx_quota", rxtx_quota, least=0),
        "rxtx_cap": valid.whole("rxtx_cap", rxtx_cap, least=0),
        "ephemeral_gb": second_gb,
    }
    with translated(duplicate=f"instance type {name!r:.60} or flavorid {flavorid!r:.60} exists"):
        type_id = db.run(instance_types.create, **values)
        return db.query(instance_types.get, type_id)


def delete(db: Database, context: RequestContext, name: str, *, purge: bool = False) -> None:
    """Withdraw a type by name; with `purge` forget it, which InUseError prevents while an instance ever had it."""
    require_admin(context, "instance_type delete")
    with translated():
        db.run(instance_types.purge if purge else instance_types.destroy, name)


def get_all(db: Database, *, inactive: bool = False) -> list[InstanceType]:
    """The types by id; with `inactive` withdrawn ones too."""
    with translated():
        return db.query(instance_types.list_all, inactive=inactive)


def get(db: Database, key: str) -> InstanceType:
    """The type of this name, flavorid or id; FlavorNotFoundError when there is none."""
    with translated():
        return db.query(instance_types.get_by_name_or_flavorid, key)
